"""Distributions of whole numbers, counted value by value: exact percentiles, in memory that only the largest sets.

What a value means to a reader (a token, a part of a row in percent) is a factor and a unit beside the counts.
"""

import dataclasses

import numpy as np

PERCENTILES = (5, 25, 50, 75, 95, 99)


@dataclasses.dataclass(frozen=True)
class Bar:
    """Neighbouring values, drawn together.

    Attributes:
      low: the least value.
      high: the greatest value, itself included.
      count: how often they occur.
    """

    low: int
    high: int
    count: int


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often each value occurs.

    Attributes:
      title: what is counted, such as "tokens of an example".
      of: what has these values: "examples" or "rows".
      counts: int64 [largest value + 1], how often each value from 0 on occurs.
      factor: a value times this is what is shown.
      unit: stands behind what is shown: "" or "%".
    """

    title: str
    of: str
    counts: np.ndarray
    factor: float = 1.0
    unit: str = ""

    @property
    def total(self) -> int:
        """How many values were counted; the following need at least one."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The mean of all values."""
        return float(np.arange(len(self.counts)) @ self.counts / self.total)

    @property
    def least(self) -> int:
        """The least value that occurs."""
        return int(np.flatnonzero(self.counts)[0])

    @property
    def greatest(self) -> int:
        """The greatest value that occurs."""
        return int(np.flatnonzero(self.counts)[-1])

    def percentile(self, percent: float) -> int:
        """Returns the least value that at least `percent` (0 to 100) of all values do not exceed."""
        return int(np.searchsorted(np.cumsum(self.counts), max(percent / 100 * self.total, 1)))

    def bars(self, most: int) -> list[Bar]:
        """Returns all values between the least and the greatest in at most `most` bars of equal width."""
        low, high = self.least, self.greatest
        width = -(-(high - low + 1) // most)
        begins = np.arange(low, high + 1, width)
        sums = np.add.reduceat(self.counts[: high + 1], begins)
        return [
            Bar(begin, begin + width - 1, count) for begin, count in zip(begins.tolist(), sums.tolist(), strict=True)
        ]

    def show(self, value: float) -> str:
        """Returns a value as people read it."""
        shown = value * self.factor
        digits = 1 if self.unit or shown != int(shown) else 0
        return f"{shown:,.{digits}f}{self.unit}"
