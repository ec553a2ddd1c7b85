"""Rows read one by one are the rows that were written, and the readers of TFDS and Grain see the same."""

from pathlib import Path

import numpy as np
import pytest

from jaxwiz.data.pack import PackedRow
from jaxwiz.data.rows import DatasetError, RowReader, read_shape
from jaxwiz.data.shards import FEATURES
from tests.data.datasets import write_dataset

T, ROWS = 16, 7


def random_row(number: int) -> PackedRow:
    random = np.random.default_rng(number)
    return PackedRow(
        tokens=random.integers(0, 2**31 - 1, T, dtype=np.int32),
        loss_mask=random.integers(0, 2, T).astype(np.bool_),
        segment_ids=random.integers(0, 5, T, dtype=np.int32),
        positions=random.integers(0, T, T, dtype=np.int32),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "data [1] set"  # brackets have a meaning to the reader of records
    write_dataset(folder, {"train": [random_row(number) for number in range(ROWS)]}, T, rows_per_shard=3)
    return folder


def reader(dataset: Path) -> RowReader:
    shape = read_shape(dataset)
    return RowReader(shape.shards["train"], shape.sequence_length)


def assert_row(row: dict[str, np.ndarray], number: int) -> None:
    written = random_row(number)
    for name, dtype in FEATURES.items():
        assert row[name].dtype == dtype
        np.testing.assert_array_equal(row[name], getattr(written, name))


def test_each_row_is_what_was_written(dataset: Path):
    rows = reader(dataset)
    assert len(rows) == ROWS
    for number in (6, 0, 3, 2, 5, 1, 4):
        assert_row(rows.read(number), number)
    for number, row in enumerate(rows):
        assert_row(row, number)


def test_tfds_and_grain_read_the_same(dataset: Path):
    import grain
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    by_tfds = tfds.builder_from_directory(dataset).as_data_source("train")
    assert len(by_tfds) == ROWS
    for number in range(ROWS):
        assert_row(by_tfds[number], number)
    by_grain = grain.sources.ArrayRecordDataSource([str(path) for path, _ in read_shape(dataset).shards["train"]])
    assert len(by_grain) == ROWS
    for number in range(ROWS):
        features = tf_example_pb2.Example.FromString(by_grain[number]).features.feature
        for name in FEATURES:
            assert features[name].bytes_list.value[0] == getattr(random_row(number), name).tobytes()


def test_a_row_is_located_by_shard_and_number_in_it(dataset: Path):
    rows = reader(dataset)
    located = [(path.name[-14:], row) for path, row in map(rows.locate, range(ROWS))]
    first, second, third = (f"{shard:05d}-of-00003" for shard in range(3))
    assert located == [(first, 0), (first, 1), (first, 2), (second, 0), (second, 1), (second, 2), (third, 0)]


def test_a_row_of_another_length_is_named(dataset: Path):
    with pytest.raises(DatasetError, match=r"00002-of-00003: row 0 .*'tokens' has 16 places instead of 8"):
        RowReader(read_shape(dataset).shards["train"], 8).read(6)
