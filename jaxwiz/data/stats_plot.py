"""The histograms of `jaxwiz data stats` as one PNG, drawn by matplotlib: the extra `plots`, imported here alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxwiz import files
from jaxwiz.data.histogram import Histogram
from jaxwiz.data.stats import SplitStats
from jaxwiz.files import UserError

BARS = 60
COLUMNS = 2
WIDTH_INCHES, HEIGHT_INCHES = 11.0, 2.9  # of the picture, and of a line of histograms in it
DOTS_PER_INCH = 120


def require_matplotlib() -> None:
    """Raises UserError if no PNG can be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "a PNG is drawn by matplotlib, which is not installed: pip install 'jaxwiz[plots]'; "
            "the HTML page has the same histograms and needs nothing"
        ) from None


def write_plot(path: Path, title: str, splits: Sequence[SplitStats]) -> None:
    """Writes the histograms of all splits as a PNG.

    Args:
      path: the file.
      title: the dataset's.
      splits: what was measured.

    Raises:
      UserError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # draws without pyplot, so without a screen and without global state

    drawn = [(stats.split, histogram) for stats in splits for histogram in stats.histograms]
    lines = -(-len(drawn) // COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES * lines), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title.replace("$", r"\$"))
    for axes, (split, histogram) in zip(figure.subplots(lines, COLUMNS).flat, drawn, strict=True):
        _draw(axes, split, histogram)
    # The name is temporary, so the format is not told by it; no date or version, so equal data gives equal bytes.
    with files.atomic_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _draw(axes: Any, split: str, histogram: Histogram) -> None:
    bars = histogram.bars(BARS)
    factor = histogram.factor
    axes.bar(
        [bar.low * factor for bar in bars],
        [bar.count for bar in bars],
        width=[(bar.high - bar.low + 1) * factor for bar in bars],
        align="edge",
        color="#2457c5",
    )
    median = histogram.percentile(50)
    axes.axvline((median + 0.5) * factor, color="#ab2222", linestyle="--", linewidth=1)
    axes.set_title(f"{split}: {histogram.title}, median {histogram.show(median)}", fontsize=10)
    axes.set_xlabel(histogram.title + (f" ({histogram.unit})" if histogram.unit else ""), fontsize=8)
    axes.set_ylabel(histogram.of, fontsize=8)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize=8)
