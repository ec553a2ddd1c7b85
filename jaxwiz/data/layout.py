"""Which examples stand in which row of which shard, decided from their lengths before the first shard is written.

The examples of a split are packed window by window, in source order, and the rows of all windows follow one another.
So the number of shards is known from the start, shards get their final names (`-of-NNNNN`) at once, and any shard can
be made without the others. In memory: 12 bytes for each example, and the tokens of one shard while it is made.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxwiz.console import progress
from jaxwiz.data.blocks import read_lengths, read_tokens
from jaxwiz.data.pack import PackedExamples, plan_packing


@dataclasses.dataclass(frozen=True)
class Layout:
    """The rows of one split.

    Attributes:
      heldout: whether this is the held-out split.
      lengths: int32 [E], tokens of each example, in source order.
      block_starts: int64 [blocks + 1], how many examples stand before each block, and in all.
      members: int32 [E], the examples as they stand in the rows, each by its place in source order.
      row_starts: int32 [R + 1], where each row begins in `members`, and where the last ends.
    """

    heldout: bool
    lengths: np.ndarray
    block_starts: np.ndarray
    members: np.ndarray
    row_starts: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of the split."""
        return len(self.row_starts) - 1

    def gather(self, blocks: Sequence[Path], first_row: int, rows: int) -> PackedExamples:
        """Returns the examples of consecutive rows, read from the blocks that hold them."""
        starts = self.row_starts[first_row : first_row + rows + 1]
        members = self.members[starts[0] : starts[-1]]
        lengths = self.lengths[members]
        ends = np.cumsum(lengths, dtype=np.int64)
        tokens = np.empty(int(ends[-1]), np.int32)
        trained = np.empty(len(tokens), np.bool_)
        by_place = np.argsort(members)
        ordered = members[by_place]
        numbers = np.searchsorted(self.block_starts, ordered, side="right") - 1
        for number in np.unique(numbers):
            from_tokens, from_trained = read_tokens(blocks[number])
            of_block, sides = read_lengths(blocks[number])
            begins = _starts(of_block)[:-1][sides == self.heldout]
            for slot in by_place[np.searchsorted(numbers, number) : np.searchsorted(numbers, number, side="right")]:
                source = begins[members[slot] - self.block_starts[number]]
                target = slice(ends[slot] - lengths[slot], ends[slot])
                tokens[target] = from_tokens[source : source + lengths[slot]]
                trained[target] = from_trained[source : source + lengths[slot]]
        return PackedExamples(tokens, trained, lengths, np.diff(starts))


def plan_layouts(blocks: Sequence[Path], sequence_length: int, window: int) -> dict[str, Layout]:
    """Returns the layout of each split that has examples.

    Args:
      blocks: files of all blocks.
      sequence_length: T.
      window: examples of a split that are packed together.
    """
    read = [read_lengths(block) for block in blocks]
    layouts = {}
    with progress("pack", sum(len(lengths) for lengths, _ in read), "examples") as advance:
        for split, heldout in (("train", False), ("heldout", True)):
            of_blocks = [lengths[sides == heldout] for lengths, sides in read]
            lengths = np.concatenate(of_blocks)
            members, counts = [], []
            for begin in range(0, len(lengths), window):
                rows = plan_packing(lengths[begin : begin + window].tolist(), sequence_length)
                members.append(np.fromiter(itertools.chain(*rows), np.int32) + np.int32(begin))
                counts.append(np.fromiter(map(len, rows), np.int32))
                advance(len(members[-1]))
            if counts:
                layouts[split] = Layout(
                    heldout=heldout,
                    lengths=lengths,
                    block_starts=_starts([len(of_block) for of_block in of_blocks]),
                    members=np.concatenate(members),
                    row_starts=_starts(np.concatenate(counts)).astype(np.int32),
                )
    return layouts


def _starts(counts: np.ndarray | list[int]) -> np.ndarray:
    """Returns where each of some runs begins that follow one another, and where the last ends: int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
