"""Packing: small plans written out, and nothing lost, split or over-full in large ones."""

import random

import numpy as np
import pytest

from jaxwiz.data.pack import PackedExamples, build_row, plan_packing


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([], []),
        ([10], [[0]]),
        ([5, 5, 5], [[0, 1], [2]]),
        ([3, 7, 5, 5], [[0, 1], [2, 3]]),
        # Best fit, not first fit: the 2 goes beside the 8, where it leaves nothing, not beside the 7.
        ([7, 8, 2], [[0], [1, 2]]),
        # Decreasing: in the order given, 4 and 4 would share a row and 6 and 6 would each leave a gap.
        ([4, 4, 6, 6], [[0, 2], [1, 3]]),
        ([6, 6, 6], [[0], [1], [2]]),
        ([1] * 12, [[*range(10)], [10, 11]]),
    ],
)
def test_small_plans(lengths, rows):
    assert plan_packing(lengths, 10) == rows


def test_a_large_plan_holds_every_example_once_and_no_row_is_over_full():
    draw = random.Random(0)
    lengths = [min(1 + int(draw.expovariate(1 / 150)), 1024) for _ in range(5000)]
    rows = plan_packing(lengths, 1024)
    assert sorted(index for row in rows for index in row) == list(range(5000))
    assert all(sum(lengths[index] for index in row) <= 1024 for row in rows)
    assert sum(lengths) / (1024 * len(rows)) > 0.99


@pytest.mark.parametrize("length", [0, 11])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(ValueError, match=f"= {length}"):
        plan_packing([3, length], 10)


def bits(*trained: int) -> np.ndarray:
    return np.array(trained, np.bool_)


def test_a_row_written_out():
    tokens = np.array([7, 8, 9, 5, 6], np.int32)
    row = build_row(tokens, bits(0, 0, 1, 0, 1), [3, 2], sequence_length=8, pad_id=4)
    assert row.tokens.tolist() == [7, 8, 9, 5, 6, 4, 4, 4]
    assert row.loss_mask.tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
    assert row.segment_ids.tolist() == [1, 1, 1, 2, 2, 0, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("trained", [bits(0, 1, 0, 0, 0), bits(0, 1, 1, 0, 0)])
def test_an_example_that_teaches_nothing_is_refused(trained):
    with pytest.raises(ValueError, match="segment 2"):
        build_row(np.arange(5, dtype=np.int32), trained, [2, 3], sequence_length=8, pad_id=0)


def test_packed_examples_give_their_rows():
    tokens = np.array([2, 2, 3, 3, 3, 4, 4, 4, 4], np.int32)
    packed = PackedExamples(tokens, np.ones(9, np.bool_), np.array([2, 3, 4], np.int32), np.array([2, 1], np.int32))
    rows = list(packed.rows(sequence_length=5, pad_id=0))
    assert [row.tokens.tolist() for row in rows] == [[2, 2, 3, 3, 3], [4, 4, 4, 4, 0]]
    assert [row.segment_ids.tolist() for row in rows] == [[1, 1, 2, 2, 2], [1, 1, 1, 1, 0]]
