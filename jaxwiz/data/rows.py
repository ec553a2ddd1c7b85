"""The rows of a dataset at random positions, read from its ArrayRecord shards without TFDS' own decoding.

A record is a `tf.train.Example` with one bytes value for each array (see `shards.py`). Protobuf's C parser hands out
those bytes, and NumPy takes them as they are: a tenth of what TFDS' generic decoder takes, and no row is opened before
it is asked for. Threads may share a reader.
"""

import bisect
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxwiz.data.shards import FEATURES, shard_name
from jaxwiz.files import UserError


class DatasetError(UserError):
    """A dataset that cannot be read; the message names file, row, rule and remedy."""


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


class RowReader:
    """The rows of one split, by number from 0."""

    def __init__(self, shards: Sequence[tuple[Path, int]], sequence_length: int) -> None:
        """Opens nothing yet; each shard is opened when a row of it is first read.

        Args:
          shards: files in order, as (path, rows).
          sequence_length: T of every row.
        """
        from array_record.python.array_record_data_source import ArrayRecordDataSource
        from tensorflow_datasets.proto import tf_example_pb2

        self._shards = shards
        self._length = sequence_length
        self._ends = list(itertools.accumulate(rows for _, rows in shards))
        # With the rows given, the source need not open every file to count them.
        self._records = ArrayRecordDataSource([f"{path}[0:{rows}]" for path, rows in shards])
        self._example = tf_example_pb2.Example

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Returns the arrays [T] of a row by name, as FEATURES types them; they cannot be written to.

        Raises:
          DatasetError: the row cannot be read; names shard and row.
        """
        try:
            return self._decode(self._records[number])
        except Exception as error:  # the readers raise many types; whichever, this row is unreadable
            path, row = self.locate(number)
            cause = (str(error) or type(error).__name__).splitlines()[0]
            raise DatasetError(
                f"{path}: row {row} cannot be read ({cause}); "
                "compare the file with its checksum in manifest.json, and run the data stage again if they differ"
            ) from error

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields all rows in order."""
        return map(self.read, range(len(self)))

    def locate(self, number: int) -> tuple[Path, int]:
        """Returns the shard that holds a row, and the row's number in it, from 0."""
        shard = bisect.bisect_right(self._ends, number)
        path, rows = self._shards[shard]
        return path, number - self._ends[shard] + rows

    def _decode(self, record: bytes) -> dict[str, np.ndarray]:
        features = self._example.FromString(record).features.feature
        arrays: dict[str, np.ndarray] = {}
        for name, dtype in FEATURES.items():
            values = features[name].bytes_list.value
            array: np.ndarray = np.frombuffer(values[0] if len(values) == 1 else b"", dtype)
            if len(array) != self._length:
                raise ValueError(f"{name!r} has {len(array)} places instead of {self._length}")
            arrays[name] = array
        return arrays
