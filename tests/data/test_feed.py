"""The feed: batches are a pure function of (seed, step), and an epoch visits every row once."""

import numpy as np
import pytest

from jaxwiz.data.feed import Batch, DatasetError, Feed, read_shape
from jaxwiz.data.pack import PackedRow
from tests.data.datasets import write_dataset

T, ROWS, B = 8, 11, 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Rows whose tokens are all the row's number, counted from 1."""
    folder = tmp_path_factory.mktemp("feed") / "dataset"
    ones = np.ones(T, np.int32)
    rows = [PackedRow(ones * n, ones.astype(np.bool_), ones, np.arange(T, dtype=np.int32)) for n in range(1, ROWS + 1)]
    write_dataset(folder, {"train": rows, "heldout": rows[:2]}, T, rows_per_shard=3)
    return folder


def numbers(batch: Batch) -> list[int]:
    return batch.tokens[:, 0].tolist()


def test_an_epoch_visits_each_row_once_and_fills_up_with_empty_rows(dataset):
    feed = Feed(dataset, "train", B, seed=1)
    assert (feed.rows, feed.steps_per_epoch, feed.sequence_length) == (ROWS, 3, T)
    orders = []
    for epoch in range(3):
        order = [number for step in range(3) for number in numbers(feed.batch(3 * epoch + step))]
        assert sorted(order) == [0, *range(1, ROWS + 1)]
        orders.append(tuple(order))
    assert len(set(orders)) == 3
    last = feed.batch(2)
    assert last.tokens.shape == last.loss_mask.shape == (B, T)
    assert (last.tokens.dtype, last.loss_mask.dtype) == (np.int32, np.bool_)
    for array in (last.tokens, last.loss_mask, last.segment_ids, last.positions):
        assert not array[3].any()
        assert array[2].any()


def test_a_batch_depends_on_seed_and_step_alone(dataset):
    straight = Feed(dataset, "train", B, seed=1)
    forwards = [numbers(straight.batch(step)) for step in range(9)]
    jumping = Feed(dataset, "train", B, seed=1)
    for step in (7, 0, 8, 3, 3, 1):
        assert numbers(jumping.batch(step)) == forwards[step]
    other = Feed(dataset, "train", B, seed=2)
    assert [numbers(other.batch(step)) for step in range(9)] != forwards


def test_the_order_of_a_seed_never_changes(dataset):
    """A resumed run may have another NumPy; the order must not hang on it."""
    assert numbers(Feed(dataset, "train", ROWS, seed=1).batch(0)) == [4, 6, 3, 10, 8, 11, 1, 9, 7, 2, 5]


def test_without_shuffling_rows_come_in_file_order(dataset):
    feed = Feed(dataset, "heldout", B, seed=0, shuffle=False)
    assert numbers(feed.batch(0)) == numbers(feed.batch(5)) == [1, 2, 0, 0]


def test_the_shape_is_read_from_the_metadata(dataset):
    shape = read_shape(dataset)
    assert (shape.sequence_length, shape.rows("train"), shape.rows("heldout"), shape.rows("test")) == (T, ROWS, 2, 0)


def test_a_missing_split_or_dataset_is_named_with_the_remedy(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"'test'.*train"):
        Feed(dataset, "test", B, seed=0)
    with pytest.raises(DatasetError, match="jaxwiz data"):
        Feed(tmp_path, "train", B, seed=0)


@pytest.fixture
def copied(dataset, tmp_path):
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in dataset.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_missing_shard_is_named(copied):
    shard = copied / "packed_instructions-train.array_record-00002-of-00004"
    shard.unlink()
    with pytest.raises(DatasetError, match=shard.name):
        Feed(copied, "train", B, seed=0)


def test_a_corrupt_record_is_named_by_file_and_row(copied):
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from array_record.python.array_record_module import ArrayRecordWriter

    shard = copied / "packed_instructions-train.array_record-00001-of-00004"
    records = list(ArrayRecordDataSource(str(shard)))
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")  # so that a record's bytes can be found
    for record in records:
        writer.write(record)
    writer.close()
    content = bytearray(shard.read_bytes())
    middle = content.index(b"tokens", content.index(b"tokens") + 1)  # inside the second of its three records
    content[middle] ^= 0xFF
    shard.write_bytes(content)
    feed = Feed(copied, "train", 1, seed=0, shuffle=False)
    assert numbers(feed.batch(0)) == [1]
    with pytest.raises(DatasetError, match=rf"{shard.name}: row 1 "):
        feed.batch(4)


def test_a_record_of_another_layout_is_named_by_file_and_row(copied):
    from array_record.python.array_record_module import ArrayRecordWriter

    shard = copied / "packed_instructions-train.array_record-00000-of-00004"
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for record in (b"", b"no example", b"\x0a\x00"):
        writer.write(record)
    writer.close()
    feed = Feed(copied, "train", 1, seed=0, shuffle=False)
    for step in range(3):
        with pytest.raises(DatasetError, match=rf"{shard.name}: row {step} "):
            feed.batch(step)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A second dataset: rows whose tokens are all 101, 102, ..."""
    folder = tmp_path_factory.mktemp("feed") / "other"
    ones = np.ones(T, np.int32)
    rows = [PackedRow(ones * n, ones.astype(np.bool_), ones, np.arange(T, dtype=np.int32)) for n in range(101, 106)]
    write_dataset(folder, {"train": rows, "heldout": rows[:1]}, T, rows_per_shard=3)
    return folder


def test_a_mix_takes_its_share_of_each_dataset(dataset, other):
    feed = Feed([dataset, other], "train", B, seed=1, weights=[3, 1])
    assert (feed.rows, feed.steps_per_epoch) == (ROWS + 5, 4)
    seen = [numbers(feed.batch(step)) for step in range(22)]
    assert all(sum(number > 100 for number in batch) == 1 for batch in seen)
    first = [number for batch in seen for number in batch if number < 100]
    assert [sorted(first[begin : begin + ROWS]) for begin in range(0, 66, ROWS)] == [list(range(1, ROWS + 1))] * 6


def test_several_datasets_without_weights_are_one(dataset, other):
    feed = Feed([dataset, other], "heldout", B, seed=0, shuffle=False)
    assert numbers(feed.batch(0)) == [1, 2, 101, 0]
    shuffled = Feed([dataset, other], "train", B, seed=0)
    epoch = [number for step in range(4) for number in numbers(shuffled.batch(step))]
    assert sorted(epoch) == [*range(1, ROWS + 1), *range(101, 106)]


@pytest.mark.parametrize("weights", [None, [1, 2]])
def test_parts_of_a_batch_are_its_rows(dataset, other, weights):
    """So that a process can read the rows of its own devices alone."""
    feed = Feed([dataset, other], "train", 8, seed=5, weights=weights)
    for step in (3, 0, 1):
        whole = feed.batch(step)
        for begin, end in ((0, 8), (2, 4), (7, 8)):
            part = feed.batch(step, begin, end)
            for name in ("tokens", "loss_mask", "segment_ids", "positions"):
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[begin:end])


def test_a_part_of_a_batch_opens_no_other_rows(copied):
    """The shard of rows 4 to 6 is gone after the start; a part without them can still be read."""
    feed = Feed(copied, "train", B, seed=0, shuffle=False)
    (copied / "packed_instructions-train.array_record-00001-of-00004").unlink()
    assert numbers(feed.batch(0, 0, 3)) == [1, 2, 3]
    with pytest.raises(DatasetError, match="00001-of-00004: row 0"):
        feed.batch(0)


def test_a_row_of_a_batch_is_located(dataset):
    feed = Feed(dataset, "train", B, seed=0, shuffle=False)
    path, row = feed.locate(1, 1)
    assert (path.name[-14:], row) == ("00001-of-00004", 2)
    assert feed.locate(2, 3) is None


def test_datasets_of_a_mix_must_have_rows_of_one_length(dataset, tmp_path):
    ones = np.ones(2 * T, np.int32)
    row = PackedRow(ones, ones.astype(np.bool_), ones, np.arange(2 * T, dtype=np.int32))
    write_dataset(tmp_path / "longer", {"train": [row]}, 2 * T, rows_per_shard=3)
    with pytest.raises(DatasetError, match=r"longer: rows of 16 tokens.*have 8"):
        Feed([dataset, tmp_path / "longer"], "train", B, seed=0, weights=[1, 1])
