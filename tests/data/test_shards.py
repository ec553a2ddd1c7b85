"""Shards: TFDS opens them and finds the very rows, without TensorFlow, Grain or JAX, and the bytes are reproducible."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from jaxwiz.data.pack import PackedExamples, PackedRow
from jaxwiz.data.shards import FEATURES, write_shards
from jaxwiz.files import hash_tree, sha256_of_bytes
from tests.data.datasets import write_dataset

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


def packed_examples() -> PackedExamples:
    lengths = np.full(5, T // 2, np.int32)
    tokens = np.arange(lengths.sum(), dtype=np.int32)
    return PackedExamples(tokens, tokens % 4 != 0, lengths, np.array([2, 2, 1], np.int32))


def test_another_process_writes_the_same_bytes_and_imports_nothing_heavy(tmp_path):
    [(name, (shard, content))] = write_shards(T, 0, iter([("a shard", packed_examples())]))
    assert name == shard.name == "a shard"
    assert (shard.rows, shard.examples, shard.tokens, shard.loss_tokens) == (3, 5, 40, 30)
    assert shard.sha256 == sha256_of_bytes(content)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from jaxwiz.data.shards import write_shards
from tests.data.test_shards import T, packed_examples
[(_, (shard, _))] = write_shards(T, 0, iter([("a shard", packed_examples())]))
print(shard.sha256, [name for name in ("tensorflow", "jax", "grain", "torch") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == f"{shard.sha256} []"
