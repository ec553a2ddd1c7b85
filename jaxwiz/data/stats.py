"""What a dataset is like: lengths of its examples, their loss shares, how full rows are, how many examples share one.

Rows are read in order and forgotten. What is kept of them are counts, one for each possible length, so percentiles are
exact and memory depends on the length of rows, never on their number.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxwiz.data.histogram import PERCENTILES, Histogram

LOSS_SHARE_STEPS = 1000  # tenths of a percent


@dataclasses.dataclass(frozen=True)
class SplitStats:
    """What the rows of one split are like.

    Attributes:
      split: its name.
      rows: how many there are.
      examples: in all rows.
      tokens: all but padding.
      loss_tokens: those that bear loss.
      histograms: lengths and loss shares of examples, then fill and examples of rows.
    """

    split: str
    rows: int
    examples: int
    tokens: int
    loss_tokens: int
    histograms: tuple[Histogram, ...]


def measure_rows(
    split: str, rows: Iterable[Mapping[str, np.ndarray]], sequence_length: int, advance: Callable[[], None]
) -> SplitStats:
    """Returns what the rows of a split are like.

    Args:
      split: its name.
      rows: at least one, with `loss_mask` and `segment_ids`, each [T].
      sequence_length: T.
      advance: called after each row.
    """
    lengths, fills, members = (np.zeros(sequence_length + 1, np.int64) for _ in range(3))
    shares = np.zeros(LOSS_SHARE_STEPS + 1, np.int64)
    loss_tokens = 0
    for row in rows:
        segments = row["segment_ids"]
        of_examples = np.bincount(segments)[1:]
        with_loss = np.bincount(segments[row["loss_mask"]], minlength=len(of_examples) + 1)[1:]
        np.add.at(lengths, of_examples, 1)
        np.add.at(shares, np.rint(with_loss * LOSS_SHARE_STEPS / np.maximum(of_examples, 1)).astype(np.int64), 1)
        fills[of_examples.sum()] += 1
        members[len(of_examples)] += 1
        loss_tokens += int(with_loss.sum())
        advance()
    places = np.arange(sequence_length + 1)
    return SplitStats(
        split=split,
        rows=int(fills.sum()),
        examples=int(lengths.sum()),
        tokens=int(lengths @ places),
        loss_tokens=loss_tokens,
        histograms=(
            Histogram("tokens of an example", "examples", lengths),
            Histogram("loss share of an example", "examples", shares, 100 / LOSS_SHARE_STEPS, "%"),
            Histogram("fill of a row", "rows", fills, 100 / sequence_length, "%"),
            Histogram("examples in a row", "rows", members),
        ),
    )


def table_of(stats: SplitStats) -> tuple[list[str], list[list[str]]]:
    """Returns the heading and the lines of a table: each distribution's mean, percentiles and ends."""
    heading = [stats.split, "mean", "least", *(f"p{percent}" for percent in PERCENTILES), "greatest"]
    lines = []
    for found in stats.histograms:
        values: Sequence[int] = [found.least, *map(found.percentile, PERCENTILES), found.greatest]
        mean = f"{found.mean * found.factor:,.1f}{found.unit}"
        lines.append([found.title, mean, *map(found.show, values)])
    return heading, lines
