"""Packed rows as a TFDS dataset of ArrayRecord shards, which TFDS, Grain and array_record open at random positions.

    tfds.builder_from_directory(folder).as_data_source("train")

Each record is a tf.Example whose four features hold the raw bytes of their arrays, which parse faster than lists of
integers, and ArrayRecord compresses them. Neither TensorFlow nor Grain nor JAX is imported. The same rows give the same
bytes, in any process.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz import files
from jaxwiz.data.pack import PackedExamples, PackedRow

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
      examples: instructions with answers in them.
      tokens: all but padding.
      loss_tokens: those that bear loss.
      sha256: of the file.
    """

    name: str
    rows: int
    row_bytes: int
    examples: int
    tokens: int
    loss_tokens: int
    sha256: str


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of shard `index` (from 0) of `count`, as TFDS expects it."""
    return f"{DATASET_NAME}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_shard(path: Path, name: str, rows: Iterable[PackedRow], sequence_length: int) -> Shard:
    """Writes a shard's file to `path` and returns what is in it.

    Args:
      path: any file; it is not written beside and renamed.
      name: the name that the file will have in its dataset.
      rows: of the shard.
      sequence_length: T of every row.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    serialize = _serializer(sequence_length)
    # One record a group: a reader fetches any single row without unpacking its neighbours.
    writer = ArrayRecordWriter(str(path), "group_size:1")
    counts = dict.fromkeys(("rows", "row_bytes", "examples", "tokens", "loss_tokens"), 0)
    for row in rows:
        record = serialize(row)
        writer.write(record)
        counts["rows"] += 1
        counts["row_bytes"] += len(record)
        counts["examples"] += int(row.segment_ids.max())
        counts["tokens"] += int(np.count_nonzero(row.segment_ids))
        counts["loss_tokens"] += int(np.count_nonzero(row.loss_mask))
    writer.close()
    return Shard(name=name, sha256=files.sha256_of_file(path), **counts)


def write_shards(
    sequence_length: int, pad_id: int, items: Iterator[tuple[str, PackedExamples]]
) -> Iterator[tuple[str, tuple[Shard, bytes]]]:
    """Yields each shard's description and the content of its file, by its name; for `fan_out`.

    Args:
      sequence_length: T of every row.
      pad_id: token of the padding.
      items: (name, examples) pairs.
    """
    for name, examples in items:
        with tempfile.TemporaryDirectory(prefix="jaxwiz-shard-") as folder:
            path = Path(folder) / name
            shard = write_shard(path, name, examples.rows(sequence_length, pad_id), sequence_length)
            content = path.read_bytes()
        yield name, (shard, content)


def write_metadata(folder: Path, splits: Mapping[str, Sequence[Shard]], sequence_length: int) -> None:
    """Writes what makes a folder of shards a dataset: `features.json` and `dataset_info.json`.

    Args:
      folder: holds all shards.
      splits: the shards of each split, in order.
      sequence_length: T of every row.
    """
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(data_dir=folder, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(sequence_length),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.rows for shard in shards],
                num_bytes=sum(shard.row_bytes for shard in shards),
                filename_template=template,
            )
            for split, shards in splits.items()
        ],
        version=DATASET_VERSION,
        filename_template=template,
        check_data=False,  # the check reads through TensorFlow
        description="Instructions with answers, tokenized and packed into rows of fixed length by jaxwiz.",
    )


def _features(sequence_length: int) -> Any:
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(shape=(sequence_length,), dtype=dtype, encoding="bytes")
            for name, dtype in FEATURES.items()
        }
    )


def _serializer(sequence_length: int) -> Callable[[PackedRow], bytes]:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = _features(sequence_length)
    serializer = ExampleSerializer(features.get_serialized_info())

    def serialize(row: PackedRow) -> bytes:
        values = features.encode_example({name: getattr(row, name) for name in FEATURES})
        # `features.serialize_example` leaves the order of a protobuf map to chance.
        return serializer.get_tf_example(values).SerializeToString(deterministic=True)

    return serialize
