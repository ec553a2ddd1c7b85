"""Batches of packed rows: a pure function of (seed, step), so that the position in the data is one integer.

Any part of any batch can be asked for at any time, at the same cost: `order.py` says which rows stand in it, and only
these are read. So a run goes on at any step without passing over what it has seen, a process reads no rows but those
of its own devices, and how many hosts, processes or threads read changes nothing. Nothing is kept in memory but the
order of the current epoch.

Reading ahead of the devices is `train/feeding.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxwiz.data.order import EMPTY, EpochOrder, MixedOrder, Order
from jaxwiz.data.rows import DatasetError, DatasetShape, RowReader, read_shape
from jaxwiz.data.shards import FEATURES

__all__ = ["Batch", "DatasetError", "DatasetShape", "Feed", "RowReader", "read_shape"]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T tokens.

    Attributes:
      tokens: int32 [B, T].
      loss_mask: bool [B, T], whether the token at t is a target of training (predicted from those before it).
      segment_ids: int32 [B, T], 1, 2, ... for the examples of a row, 0 for padding.
      positions: int32 [B, T], from 0 within each example; 0 in padding.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray


class Feed:
    """The batches of one split of one or several datasets.

    Attributes:
      sequence_length: T.
      rows: rows in the split, of all datasets.
      batch_size: B.
      steps_per_epoch: batches that visit each row once; of a mix, those that hold as many rows.
      on_corrupt: called with each row that cannot be read, as (shard, number, cause), in whichever thread reads; an
        empty row stands in its place then. None: such a row is an error.
    """

    def __init__(
        self,
        datasets: Path | Sequence[Path],
        split: str,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
        on_corrupt: Callable[[Path, int, str], None] | None = None,
    ) -> None:
        """Finds the rows; shards are opened when they are first needed.

        Args:
          datasets: the folders `dataset` that the data stage wrote, one or several.
          split: "train" or "heldout".
          batch_size: B.
          seed: of the epochs' orders, from 0.
          shuffle: false reads the rows in stored order, one dataset after another, the same in every epoch.
          weights: of each dataset, for a mix by weight; None: an epoch visits each row of all datasets once.
          on_corrupt: see above.

        Raises:
          DatasetError: no such dataset or split, or datasets whose rows differ in length.
          UserError: weights that cannot be kept to.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: must be at least 1")
        folders = [datasets] if isinstance(datasets, Path) else list(datasets)
        shapes = {folder: read_shape(folder) for folder in folders}
        _require_alike(shapes, split)
        rows = [shapes[folder].rows(split) for folder in folders]
        self.sequence_length = shapes[folders[0]].sequence_length
        self.rows = sum(rows)
        self.batch_size = batch_size
        self.on_corrupt = on_corrupt
        self._order: Order = (
            EpochOrder(rows, batch_size, seed, shuffle)
            if weights is None
            else MixedOrder(rows, weights, batch_size, seed)
        )
        self.steps_per_epoch = self._order.steps_per_epoch
        self._readers = [RowReader(shapes[folder].shards[split], self.sequence_length) for folder in folders]

    def batch(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        """Returns the batch of a step, or some of its rows, whatever was asked for before.

        Args:
          step: from 0, without end; epoch `step // steps_per_epoch`.
          begin: the first row of the batch to return.
          end: the row to stop before; None: B.

        Raises:
          DatasetError: a row cannot be read, and there is no `on_corrupt`.
        """
        datasets, rows = self._order.places(step, begin, self.batch_size if end is None else end)
        shape = (len(rows), self.sequence_length)
        arrays: dict[str, np.ndarray] = {name: np.zeros(shape, dtype) for name, dtype in FEATURES.items()}
        for slot, (dataset, number) in enumerate(zip(datasets.tolist(), rows.tolist(), strict=True)):
            if number == EMPTY:
                continue
            try:
                row = self._readers[dataset].read(number)
            except DatasetError as error:
                if self.on_corrupt is None:
                    raise
                path, row_of_shard = self._readers[dataset].locate(number)
                cause = str(error.__cause__) or type(error.__cause__).__name__
                self.on_corrupt(path, row_of_shard, cause.partition("\n")[0])
                continue
            for name, array in arrays.items():
                array[slot] = row[name]
        return Batch(**arrays)

    def locate(self, step: int, place: int) -> tuple[Path, int] | None:
        """Returns the shard that holds a row of a batch and its number in it, from 0; None for an empty row."""
        (dataset,), (number,) = self._order.places(step, place, place + 1)
        return None if number == EMPTY else self._readers[dataset].locate(int(number))


def _require_alike(shapes: dict[Path, DatasetShape], split: str) -> None:
    first, *others = shapes
    for folder, shape in shapes.items():
        if not shape.rows(split):
            raise DatasetError(
                f"{folder}: has no split {split!r}, but {', '.join(shape.shards)}; "
                "set heldout_share above 0 in the data stage to get 'heldout'"
            )
    for folder in others:
        if shapes[folder].sequence_length != shapes[first].sequence_length:
            raise DatasetError(
                f"{folder}: rows of {shapes[folder].sequence_length} tokens, but those of {first} have "
                f"{shapes[first].sequence_length}; run the data stage with one sequence_length for both"
            )
