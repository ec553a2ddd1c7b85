"""`jaxwiz data stats`: what a dataset is like, with histograms as a page and as a PNG."""

import argparse
from pathlib import Path

SUMMARY = "lengths, fill and loss shares of a dataset: percentiles as text, histograms as HTML and PNG"
DESCRIPTION = "A config file that is itself called `stats` is run by `jaxwiz data ./stats`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("dataset", type=Path, metavar="SHARDS", help="the data stage's folder, or `dataset` in it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="default: stats.html in the data stage's folder")
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="default: stats.png there, where matplotlib is installed"
    )


def run(options: argparse.Namespace) -> int:
    """Returns 0.

    Raises:
      UserError: no such dataset; a folder where a file is to be written; or --png without matplotlib.
    """
    from jaxwiz.data.stats_command import show_stats
    from jaxwiz.files import UserError

    for name in ("html", "png"):
        path = getattr(options, name)
        if path and path.is_dir():
            raise UserError(f"--{name} {path}: a folder; name the file to write")
    show_stats(options.dataset, options.html, options.png)
    return 0
