"""Layouts: every example in one row of one shard, whatever the blocks, and each shard made without the others."""

from pathlib import Path

import numpy as np
import pytest

from jaxwiz.data.blocks import TokenBlock, block_path, read_lengths, read_reject_lines, read_tokens
from jaxwiz.data.layout import plan_layouts
from jaxwiz.data.sources import Reject

T, PAD = 32, 0


def save_examples(folder: Path, count: int, per_block: int) -> list[Path]:
    """Saves examples of 2 to 16 tokens, all of them the example's number (from 1); each third is held out."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, 17, count).astype(np.int32)
    paths = []
    for begin in range(0, count, per_block):
        numbers = np.arange(begin, min(begin + per_block, count))
        of_block = lengths[numbers]
        tokens = np.repeat(numbers + 1, of_block).astype(np.int32)
        block = TokenBlock(tokens, np.ones(len(tokens), np.bool_), of_block, numbers % 3 == 0, ())
        paths.append(block_path(folder, len(paths)))
        block.save(paths[-1])
    return paths


def all_rows(blocks: list[Path], split: str, window: int, rows_per_shard: int = 1000) -> list[list[int]]:
    """Returns the tokens of every row of a split."""
    layout = plan_layouts(blocks, T, window)[split]
    found = []
    for begin in range(0, layout.rows, rows_per_shard):
        packed = layout.gather(blocks, begin, min(rows_per_shard, layout.rows - begin))
        found += [row.tokens.tolist() for row in packed.rows(T, PAD)]
    assert len(found) == layout.rows
    return found


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_every_example_is_there_once_and_whole_on_its_side(window, tmp_path):
    blocks = save_examples(tmp_path, 100, per_block=9)
    lengths = np.concatenate([np.load(path)["lengths"] for path in blocks])
    for split, numbers in (
        ("train", [n for n in range(1, 101) if (n - 1) % 3]),
        ("heldout", [n for n in range(1, 101) if (n - 1) % 3 == 0]),
    ):
        rows = all_rows(blocks, split, window)
        tokens = np.concatenate(rows)
        assert sorted(set(tokens.tolist()) - {PAD}) == numbers
        for row in rows:
            # An example is one run of its own number, as long as it was.
            for number in set(row) - {PAD}:
                begin = row.index(number)
                assert row[begin : begin + lengths[number - 1]] == [number] * lengths[number - 1]
        assert (tokens != PAD).sum() == lengths[np.array(numbers) - 1].sum()


def test_examples_stay_within_their_window(tmp_path):
    blocks = save_examples(tmp_path, 90, per_block=90)
    train = [n for n in range(1, 91) if (n - 1) % 3]
    for row in all_rows(blocks, "train", window=10):
        assert len({train.index(number) // 10 for number in set(row) - {PAD}}) == 1


def test_neither_blocks_nor_shards_change_a_row(tmp_path):
    wanted = all_rows(save_examples(tmp_path / "one", 200, per_block=200), "heldout", window=50)
    for per_block, rows_per_shard in ((7, 1), (64, 3), (200, 4)):
        blocks = save_examples(tmp_path / str(per_block), 200, per_block)
        assert all_rows(blocks, "heldout", 50, rows_per_shard) == wanted


def test_a_split_without_examples_is_left_out(tmp_path):
    empty = np.empty(0, np.int32)
    TokenBlock(empty, empty.astype(np.bool_), empty, empty.astype(np.bool_), ()).save(block_path(tmp_path, 0))
    assert plan_layouts([block_path(tmp_path, 0)], T, 10) == {}


def test_a_block_keeps_tokens_marks_and_rejects(tmp_path):
    reject = Reject(Path("a.json"), 3, "over-long", "line\x0bbreaks\u2028 of all kinds")
    tokens = np.arange(11, dtype=np.int32)
    trained = tokens % 3 == 0
    TokenBlock(tokens, trained, np.array([4, 7], np.int32), np.array([True, False]), [reject] * 2).save(tmp_path / "b")
    for found, wanted in zip(read_tokens(tmp_path / "b"), (tokens, trained), strict=True):
        np.testing.assert_array_equal(found, wanted)
    lengths, heldout = read_lengths(tmp_path / "b")
    assert (lengths.tolist(), heldout.tolist()) == ([4, 7], [True, False])
    assert read_reject_lines(tmp_path / "b") == [reject.to_json() + "\n"] * 2
