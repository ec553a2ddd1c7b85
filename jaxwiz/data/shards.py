"""Packed rows as a TFDS dataset of ArrayRecord shards, which TFDS, Grain and array_record open at random positions.

    tfds.builder_from_directory(folder).as_data_source("train")

Each record is a tf.Example whose four features hold the raw bytes of their arrays, which parse faster than lists of
integers, and ArrayRecord compresses them. Neither TensorFlow nor Grain nor JAX is imported. The same rows give the same
bytes, in any process.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz import files
from jaxwiz.data.pack import PackedRow

DATASET_NAME = "packed_instructions"
DATASET_VERSION = "1.0.0"  # of the row layout, not of the data
FEATURES = {"tokens": np.int32, "loss_mask": np.bool_, "segment_ids": np.int32, "positions": np.int32}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a split.

    Attributes:
      name: file name in the dataset's folder.
      rows: rows in it.
      row_bytes: their bytes before compression.
      sha256: of the file.
    """

    name: str
    rows: int
    row_bytes: int
    sha256: str


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of shard `index` (from 0) of `count`, as TFDS expects it."""
    return f"{DATASET_NAME}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_dataset(
    folder: Path, splits: Mapping[str, Sequence[PackedRow]], sequence_length: int, rows_per_shard: int
) -> dict[str, list[Shard]]:
    """Writes a dataset, whole or not at all, and returns the shards of each split.

    Args:
      folder: becomes the dataset; what stands there is replaced.
      splits: the rows of each split, none of them empty.
      sequence_length: T of every row.
      rows_per_shard: rows in each shard but the last.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=(sequence_length,), dtype=dtype, encoding="bytes")
            for name, dtype in FEATURES.items()
        }
    )
    serializer = ExampleSerializer(features.get_serialized_info())

    def serialize(row: PackedRow) -> bytes:
        values = features.encode_example({name: getattr(row, name) for name in FEATURES})
        # `features.serialize_example` leaves the order of a protobuf map to chance.
        return serializer.get_tf_example(values).SerializeToString(deterministic=True)

    written = {}
    with files.atomic_folder(folder) as partial:
        for split, rows in splits.items():
            written[split] = _write_split(partial, split, rows, rows_per_shard, serialize)
        template = tfds.core.ShardedFileTemplate(
            data_dir=partial, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        )
        tfds.folder_dataset.write_metadata(
            data_dir=partial,
            features=features,
            split_infos=[_split_info(tfds, split, shards, template) for split, shards in written.items()],
            version=DATASET_VERSION,
            filename_template=template,
            check_data=False,  # the check reads through TensorFlow
            description="Instructions with answers, tokenized and packed into rows of fixed length by jaxwiz.",
        )
    return written


def _split_info(tfds: Any, split: str, shards: list[Shard], template: Any) -> Any:
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard.rows for shard in shards],
        num_bytes=sum(shard.row_bytes for shard in shards),
        filename_template=template,
    )


def _write_split(
    folder: Path, split: str, rows: Sequence[PackedRow], rows_per_shard: int, serialize: Callable[[PackedRow], bytes]
) -> list[Shard]:
    from array_record.python.array_record_module import ArrayRecordWriter

    if not rows:
        raise ValueError(f"split {split!r} has no rows; leave it out")
    count = math.ceil(len(rows) / rows_per_shard)
    shards = []
    for shard in range(count):
        path = folder / shard_name(split, shard, count)
        # One record a group: a reader fetches any single row without unpacking its neighbours.
        writer = ArrayRecordWriter(str(path), "group_size:1")
        numbers = range(shard * rows_per_shard, min((shard + 1) * rows_per_shard, len(rows)))
        row_bytes = 0
        for number in numbers:
            record = serialize(rows[number])
            writer.write(record)
            row_bytes += len(record)
        writer.close()
        shards.append(Shard(path.name, len(numbers), row_bytes, files.sha256_of_file(path)))
    return shards
