"""Shards: TFDS opens them and finds the very rows, without TensorFlow, Grain or JAX, and the bytes are reproducible."""

import subprocess
import sys

import numpy as np
import pytest

from jaxwiz.data.pack import PackedRow
from jaxwiz.data.shards import FEATURES, write_dataset
from jaxwiz.files import hash_tree

T = 16


def random_rows(count: int, seed: int = 0) -> list[PackedRow]:
    draw = np.random.default_rng(seed)
    return [
        PackedRow(
            tokens=draw.integers(0, 50_000, T).astype(np.int32),
            loss_mask=draw.random(T) > 0.5,
            segment_ids=draw.integers(0, 5, T).astype(np.int32),
            positions=draw.integers(0, T, T).astype(np.int32),
        )
        for _ in range(count)
    ]


def test_tfds_opens_every_split_and_finds_the_rows(tmp_path):
    import tensorflow_datasets as tfds

    splits = {"train": random_rows(10), "heldout": random_rows(3, seed=1)}
    shards = write_dataset(tmp_path / "dataset", splits, T, rows_per_shard=4)
    assert [shard.rows for shard in shards["train"]] == [4, 4, 2]
    assert shards["train"][2].name == "packed_instructions-train.array_record-00002-of-00003"
    assert {name: hash_tree(tmp_path / "dataset")[name] for name in [shards["heldout"][0].name]} == {
        shards["heldout"][0].name: shards["heldout"][0].sha256
    }
    builder = tfds.builder_from_directory(tmp_path / "dataset")
    for split, rows in splits.items():
        source = builder.as_data_source(split)
        assert len(source) == len(rows)
        for index in reversed(range(len(rows))):
            for name, dtype in FEATURES.items():
                assert source[index][name].dtype == dtype
                np.testing.assert_array_equal(source[index][name], getattr(rows[index], name))


def test_array_record_finds_the_rows_in_order(tmp_path):
    """The readers of Grain and array_record take the shard files alone."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    write_dataset(tmp_path / "dataset", {"train": random_rows(9)}, T, rows_per_shard=4)
    paths = sorted(str(path) for path in (tmp_path / "dataset").glob("*.array_record-*"))
    records = ArrayRecordDataSource(paths)
    assert len(records) == 9
    assert random_rows(9)[6].tokens.tobytes() in records[6]


def test_another_process_writes_the_same_bytes_and_imports_nothing_heavy(tmp_path):
    write_dataset(tmp_path / "here", {"train": random_rows(5)}, T, rows_per_shard=2)
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from test_shards import T, random_rows
from jaxwiz.data.shards import write_dataset
write_dataset(Path(sys.argv[1]), {{"train": random_rows(5)}}, T, rows_per_shard=2)
print([name for name in ("tensorflow", "jax", "grain", "torch") if name in sys.modules])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert hash_tree(tmp_path / "here") == hash_tree(tmp_path / "there")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_dataset(tmp_path / "dataset", {"train": random_rows(3)}, T, rows_per_shard=2)
    before = hash_tree(tmp_path)
    with pytest.raises(ValueError, match="heldout"):
        write_dataset(tmp_path / "dataset", {"train": random_rows(8), "heldout": []}, T, rows_per_shard=2)
    assert hash_tree(tmp_path) == before
