"""`jaxwiz data stats`: what a dataset is like, as text, as a page of histograms, and as a PNG of the same.

It reads the shards and the manifest and needs neither tokenizer nor template: `jaxwiz audit` judges rows, this counts.
"""

from pathlib import Path
from typing import Any

from jaxwiz import files
from jaxwiz.console import progress, say, warn
from jaxwiz.data.manifest import read_manifest, summarize
from jaxwiz.data.rows import RowReader, read_shape
from jaxwiz.data.stats import SplitStats, measure_rows, table_of
from jaxwiz.data.stats_page import render_page
from jaxwiz.data.stats_plot import require_matplotlib, write_plot
from jaxwiz.files import UserError

PAGE, PLOT = "stats.html", "stats.png"


def show_stats(path: Path, page: Path | None = None, plot: Path | None = None) -> None:
    """Prints what a dataset is like, and draws it.

    Args:
      path: a data stage's folder, or `dataset` in it.
      page: becomes the HTML page; None: `stats.html` in the data stage's folder.
      plot: becomes the PNG; None: `stats.png` there, if matplotlib is installed.

    Raises:
      UserError: there is no such dataset, a row cannot be read, or a PNG was asked for and cannot be drawn.
    """
    if plot is not None:
        require_matplotlib()
    out, manifest = read_manifest(path)
    shape = read_shape(out / "dataset")
    splits = []
    for split, shards in shape.shards.items():
        reader = RowReader(shards, shape.sequence_length)
        with progress(f"stats {split}", len(reader), "rows") as advance:
            splits.append(measure_rows(split, reader, shape.sequence_length, advance))
    summary = f"{summarize(manifest)}{_cleaning_lines(manifest)}"
    print(summary)
    for stats in splits:
        print(_table(stats))
    page = page or out / PAGE
    files.write_text(page, render_page(str(path), summary, splits))
    say(f"written: {page}")
    try:
        write_plot(plot or out / PLOT, str(path), splits)
    except UserError as error:
        warn(str(error))
    else:
        say(f"written: {plot or out / PLOT}")


def _cleaning_lines(manifest: dict[str, Any]) -> str:
    """Returns which test of the cleaning excluded how many rows, a line for each reason."""
    return "".join(
        f"{reason.replace('_', ' ')}: {', '.join(f'{count:,} {tier}' for tier, count in tiers.items())}\n"
        for reason, tiers in manifest["cleaning"].items()
    )


def _table(stats: SplitStats) -> str:
    heading, lines = table_of(stats)
    widths = [max(map(len, column)) for column in zip(heading, *lines, strict=True)]
    text = ""
    for line in (heading, *lines):
        cells = [f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)]
        text += "  ".join([f"{line[0]:{widths[0]}}", *cells]) + "\n"
    return text
