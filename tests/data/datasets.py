"""Datasets of rows that a test makes itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxwiz.data.pack import PackedRow
from jaxwiz.data.shards import Shard, shard_name, write_metadata, write_shard


def write_dataset(
    folder: Path, splits: Mapping[str, Sequence[PackedRow]], sequence_length: int, rows_per_shard: int
) -> dict[str, list[Shard]]:
    """Writes the rows of each split as a dataset, and returns its shards."""
    folder.mkdir()
    written = {}
    for split, rows in splits.items():
        parts = [rows[begin : begin + rows_per_shard] for begin in range(0, len(rows), rows_per_shard)]
        names = [shard_name(split, index, len(parts)) for index in range(len(parts))]
        written[split] = [
            write_shard(folder / name, name, part, sequence_length) for name, part in zip(names, parts, strict=True)
        ]
    write_metadata(folder, written, sequence_length)
    return written
