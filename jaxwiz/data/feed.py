"""Batches of packed rows: a pure function of (seed, step), so that the position in the data is one integer.

Every epoch visits each row exactly once, in an order drawn from (seed, epoch). The last batch of an epoch is filled up
with empty rows (segment 0 throughout, no loss), so all batches have one shape and none mixes epochs. Rows are read at
random positions; nothing is kept in memory but the order of the current epoch.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz.data.shards import FEATURES, shard_name
from jaxwiz.files import UserError


class DatasetError(UserError):
    """A dataset that cannot be read; the message names file, row, rule and remedy."""


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


@dataclasses.dataclass(frozen=True)
class DatasetShape:
    """What a dataset's metadata says.

    Attributes:
      sequence_length: T.
      shards: for each split its files in order, as (path, rows).
    """

    sequence_length: int
    shards: dict[str, tuple[tuple[Path, int], ...]]

    def rows(self, split: str) -> int:
        """Returns the rows of a split; 0 if there is no such split."""
        return sum(rows for _, rows in self.shards.get(split, ()))


def read_shape(dataset: Path) -> DatasetShape:
    """Returns the shape of a dataset from its metadata alone, quickly: neither TFDS nor a shard is opened.

    Raises:
      DatasetError: the metadata is missing or not of a dataset that jaxwiz wrote, or a shard is missing.
    """
    try:
        features = json.loads((dataset / "features.json").read_text())["featuresDict"]["features"]
        splits = json.loads((dataset / "dataset_info.json").read_text())["splits"]
        (length,) = features["tokens"]["tensor"]["shape"]["dimensions"]
        missing = FEATURES.keys() - features.keys()
        if missing:
            raise ValueError(f"no feature {min(missing)!r}")
        shards = {}
        for split in splits:
            name, counts = split["name"], split["shardLengths"]
            paths = [dataset / shard_name(name, index, len(counts)) for index in range(len(counts))]
            shards[name] = tuple((path, int(count)) for path, count in zip(paths, counts, strict=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{dataset}: not a dataset of packed rows ({error}); give the folder `dataset` that `jaxwiz data` wrote"
        ) from None
    for path, _ in (shard for of_split in shards.values() for shard in of_split):
        if not path.is_file():
            raise DatasetError(f"{path}: this shard is missing; copy the whole folder, or run the data stage again")
    return DatasetShape(int(length), shards)


class Feed:
    """The batches of one split.

    Attributes:
      sequence_length: T.
      rows: rows in the split.
      steps_per_epoch: batches that visit each row once.
    """

    def __init__(self, dataset: Path, split: str, batch_size: int, seed: int, shuffle: bool = True) -> None:
        """Opens a split for reading.

        Args:
          dataset: the folder `dataset` that the data stage wrote.
          split: "train" or "heldout".
          batch_size: B.
          seed: of the epochs' orders, from 0.
          shuffle: false reads the rows in file order, the same in every epoch.

        Raises:
          DatasetError: no such dataset or split.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: must be at least 1")
        shape = read_shape(dataset)
        if not shape.rows(split):
            raise DatasetError(
                f"{dataset}: has no split {split!r}, but {', '.join(shape.shards)}; "
                "set heldout_share above 0 in the data stage to get 'heldout'"
            )
        self.sequence_length = shape.sequence_length
        self.rows = shape.rows(split)
        self.steps_per_epoch = -(-self.rows // batch_size)
        self._shards = shape.shards[split]
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._source = _open_split(dataset, split)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, whatever was asked for before.

        Args:
          step: from 0, without end; epoch `step // steps_per_epoch`.

        Raises:
          DatasetError: a row cannot be read.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._epoch_order(epoch)[place * self._batch_size : (place + 1) * self._batch_size]
        shape = (self._batch_size, self.sequence_length)
        arrays: dict[str, np.ndarray] = {name: np.zeros(shape, dtype) for name, dtype in FEATURES.items()}
        for slot, number in enumerate(chosen):
            row = self._read(int(number))
            for name, array in arrays.items():
                array[slot] = row[name]
        return Batch(**arrays)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self.rows)
        if self._order[0] != epoch:
            # Raw Philox words are the same in every NumPy; the ways in which it shuffles are not promised to be.
            words = np.random.Philox(key=np.array([self._seed, epoch], np.uint64)).random_raw(self.rows)
            self._order = (epoch, np.argsort(words, kind="stable"))
        return self._order[1]

    def _read(self, number: int) -> Any:
        try:
            return self._source[number]
        except Exception as error:  # the readers raise many types; whichever, this row is unreadable
            path, row = self._locate(number)
            cause = (str(error) or type(error).__name__).splitlines()[0]
            raise DatasetError(
                f"{path}: row {row} cannot be read ({cause}); "
                "compare the file with its checksum in manifest.json, and run the data stage again if they differ"
            ) from error

    def _locate(self, number: int) -> tuple[Path, int]:
        """Returns the shard that holds a row of the split, and the row's number in it, from 0."""
        for path, rows in self._shards:
            if number < rows:
                return path, number
            number -= rows
        raise IndexError(number)


def _open_split(dataset: Path, split: str) -> Any:
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(dataset).as_data_source(split)
