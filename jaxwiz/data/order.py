"""Which row stands at which place of which batch: arithmetic on (seed, step), without state and without reading data.

`EpochOrder`: every epoch visits each row of all datasets once, in an order drawn from (seed, epoch). The last batch of
an epoch is filled up with empty places, so that all batches have one shape and none mixes epochs.

`MixedOrder`: an endless stream in which every dataset has the share that its weight gives it, evenly spread and exact
over each period of the weights. Every dataset goes through epochs of its own, so a small one comes round more often.
"""

import math
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from jaxwiz.files import UserError

EMPTY = -1
LONGEST_PERIOD = 1_000_000


class Order(Protocol):
    """The places of all batches.

    Attributes:
      steps_per_epoch: batches of an epoch.
    """

    steps_per_epoch: int

    def places(self, step: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns places `begin` to `end` of the batch of `step`, as dataset and row in it, each int64 [end - begin].

        The row of an empty place is EMPTY.
        """


class EpochOrder:
    """All rows of all datasets, one after another or shuffled together; see the head of this file."""

    def __init__(self, rows: Sequence[int], batch_size: int, seed: int, shuffle: bool) -> None:
        """Begins with step 0.

        Args:
          rows: of each dataset.
          batch_size: B.
          seed: of the epochs' orders, from 0.
          shuffle: false keeps the stored order in every epoch.
        """
        self._starts = np.cumsum([0, *rows])
        self._rows = sum(rows)
        self._batch_size = batch_size
        self._shuffles = _Shuffles(self._rows, seed, stream=0) if shuffle else None
        self.steps_per_epoch = -(-self._rows // batch_size)

    def places(self, step: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns datasets and rows of some places; see `Order.places`."""
        epoch, place = divmod(step, self.steps_per_epoch)
        numbers = np.arange(place * self._batch_size + begin, place * self._batch_size + end)
        filled = numbers < self._rows
        if self._shuffles is not None:
            numbers = np.where(filled, self._shuffles.order(epoch)[np.where(filled, numbers, 0)], 0)
        datasets = np.where(filled, np.searchsorted(self._starts, numbers, side="right") - 1, 0)
        return datasets, np.where(filled, numbers - self._starts[datasets], EMPTY)


class MixedOrder:
    """Several datasets by weight; see the head of this file. An epoch is as many rows as all of them have together."""

    def __init__(self, rows: Sequence[int], weights: Sequence[float], batch_size: int, seed: int) -> None:
        """Begins with step 0.

        Args:
          rows: of each dataset.
          weights: of each dataset, above 0, relative to their sum; as they are written in decimal digits.
          batch_size: B.
          seed: of the datasets' orders, from 0.

        Raises:
          UserError: weights that only a very long period can keep to exactly.
        """
        self._counts = whole_weights(weights)
        self._period = int(self._counts.sum())
        # The i-th of w rows of a period stands at (i + 1/2) / w of it, so that every dataset is spread evenly.
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in self._counts])
        of_place = np.repeat(np.arange(len(rows)), self._counts)
        earlier = np.concatenate([np.arange(count) for count in self._counts])
        by_due = np.argsort(due, kind="stable")
        self._datasets, self._earlier = of_place[by_due], earlier[by_due]
        self._rows = np.asarray(rows, np.int64)
        self._shuffles = [_Shuffles(count, seed, stream) for stream, count in enumerate(rows)]
        self._batch_size = batch_size
        self.steps_per_epoch = -(-sum(rows) // batch_size)

    def places(self, step: int, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns datasets and rows of some places; see `Order.places`."""
        numbers = np.arange(step * self._batch_size + begin, step * self._batch_size + end)
        periods, places = np.divmod(numbers, self._period)
        datasets = self._datasets[places]
        drawn = periods * self._counts[datasets] + self._earlier[places]
        epochs, within = np.divmod(drawn, self._rows[datasets])
        rows = np.empty_like(numbers)
        for dataset, epoch in sorted(set(zip(datasets.tolist(), epochs.tolist(), strict=True))):
            chosen = (datasets == dataset) & (epochs == epoch)
            rows[chosen] = self._shuffles[dataset].order(epoch)[within[chosen]]
        return datasets, rows


def whole_weights(weights: Sequence[float]) -> np.ndarray:
    """Returns the smallest whole numbers in the same ratio, int64; 0.1 counts as one tenth.

    Raises:
      UserError: a weight isn't above 0, or their sum exceeds LONGEST_PERIOD.
    """
    if not all(0 < weight < math.inf for weight in weights):
        raise UserError(f"weights {', '.join(map(str, weights))}: each must be above 0")
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    smallest = np.array([count // math.gcd(*whole) for count in whole], np.int64)
    if smallest.sum() > LONGEST_PERIOD:
        raise UserError(
            f"weights {', '.join(map(str, weights))}: only {smallest.sum():,} rows would hold them exactly, at most "
            f"{LONGEST_PERIOD:,} may be needed; round them"
        )
    return smallest


class _Shuffles:
    """The orders of a dataset's epochs. Two are kept: threads that read ahead stand on both sides of a border."""

    def __init__(self, rows: int, seed: int, stream: int) -> None:
        self._rows = rows
        self._seed = seed
        self._stream = stream
        self._lock = threading.Lock()
        self._kept: dict[int, np.ndarray] = {}

    def order(self, epoch: int) -> np.ndarray:
        """Returns all row numbers in the order of an epoch, int64."""
        with self._lock:
            if epoch not in self._kept:
                # Raw Philox words are the same in every NumPy; the ways in which it shuffles are not promised to be.
                key = np.array([self._seed, epoch], np.uint64)
                words = np.random.Philox(key=key, counter=[0, 0, 0, self._stream]).random_raw(self._rows)
                while len(self._kept) > 1:
                    del self._kept[next(iter(self._kept))]
                self._kept[epoch] = np.argsort(words, kind="stable")
            return self._kept[epoch]
