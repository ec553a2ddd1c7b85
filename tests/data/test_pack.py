"""Packing: small plans written out, and nothing lost, split or over-full in large ones."""

import random
from pathlib import Path

import numpy as np
import pytest

from jaxwiz.data.encode import Example
from jaxwiz.data.pack import PackedRows, build_row, plan_packing
from jaxwiz.data.sources import Row


def example(tokens: list[int], trained: list[int]) -> Example:
    row = Row(Path("rows.json"), 1, "instruction", "", "output")
    return Example(row, np.array(tokens, np.int32), np.array(trained, np.bool_))


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


def test_a_row_written_out():
    row = build_row([example([7, 8, 9], [0, 0, 1]), example([5, 6], [0, 1])], sequence_length=8, pad_id=4)
    assert row.tokens.tolist() == [7, 8, 9, 5, 6, 4, 4, 4]
    assert row.loss_mask.tolist() == [0, 0, 1, 0, 1, 0, 0, 0]
    assert row.segment_ids.tolist() == [1, 1, 1, 2, 2, 0, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("trained", [[0, 0, 0], [1, 0, 0]])
def test_an_example_that_teaches_nothing_is_refused(trained):
    with pytest.raises(ValueError, match=r"rows\.json:1"):
        build_row([example([1, 2, 3], trained)], sequence_length=8, pad_id=0)


def test_rows_are_built_as_they_are_asked_for():
    examples = [example([n] * n, [0] * (n - 1) + [1]) for n in (2, 3, 4)]
    rows = PackedRows(examples, sequence_length=5, pad_id=0)
    assert [row.tokens.tolist() for row in rows] == [[2, 2, 3, 3, 3], [4, 4, 4, 4, 0]]
    assert [row.tokens.tolist() for row in rows[1:]] == [[4, 4, 4, 4, 0]]
