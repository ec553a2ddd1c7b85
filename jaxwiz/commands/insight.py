"""`jaxwiz insight`: the report of a finished evolution."""

import argparse
from pathlib import Path

SUMMARY = "report on a finished evolve run: acceptance, growth, topics, cost, and every lineage with its changes"
DESCRIPTION = "Prints the run's summary, and writes a page that needs no network. A run whose budget ended counts, too."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the `out` folder of an evolve run")
    parser.add_argument("--html", type=Path, metavar="FILE", help="default: insight.html in that folder")
    parser.add_argument(
        "--seed", nargs="+", default=[], metavar="ID", help="seeds whose lineages the page has in any case"
    )
    parser.add_argument(
        "--mebibytes",
        type=int,
        default=8,
        metavar="N",
        help="most text of lineages on the page (8); the rest is left out",
    )


def run(options: argparse.Namespace) -> int:
    """Returns 0.

    Raises:
      UserError: no finished evolve run, or no such seed; or a folder where the page is to be written.
    """
    from jaxwiz.files import UserError, write_text
    from jaxwiz.insight.page import render_page
    from jaxwiz.insight.rows import read_run

    page = options.html or options.run / "insight.html"
    if page.is_dir():
        raise UserError(f"--html {page}: a folder; name the file to write")
    if options.mebibytes < 0:
        raise UserError(f"--mebibytes {options.mebibytes}: must be 0 or more")
    found = read_run(options.run, options.seed, options.mebibytes << 20)
    write_text(page, render_page(found))
    print((options.run / "summary.txt").read_text(encoding="utf-8"), end="")
    print(f"page:        {page}, with {len(found.lineages)} of {found.seeds} lineages")
    return 0
