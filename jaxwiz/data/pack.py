"""Examples to rows of a fixed length, by best-fit decreasing: longest first, each into the fullest row with room.

An example is never split. Each carries its segment number and positions that restart at 0, by which attention keeps
examples of one row apart. The plan depends on the lengths alone and is the same everywhere; within it, examples and
rows stand in the order of the sources, so that unshuffled reading mixes long and short ones.
"""

import bisect
import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import overload

import numpy as np

from jaxwiz.data.encode import Example


@dataclasses.dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of T tokens.

    Attributes:
      tokens: int32 [T].
      loss_mask: bool [T], whether the token at t is a target of training (predicted from those before it).
      segment_ids: int32 [T], 1, 2, ... for the examples of the row, 0 for padding.
      positions: int32 [T], from 0 within each example; 0 in padding.
    """

    tokens: np.ndarray
    loss_mask: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray


def plan_packing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Returns the rows, each as the ascending indices of the examples in it, ordered by their first.

    Args:
      lengths: tokens of each example, from 1 to `capacity`.
      capacity: T, tokens of a row.

    Raises:
      ValueError: a length is out of range.
    """
    rows: list[list[int]] = []
    rows_by_room: dict[int, deque[int]] = {}  # free tokens -> rows with exactly so many, the earliest first
    rooms: list[int] = []  # its keys, ascending
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        if not 0 < length <= capacity:
            raise ValueError(
                f"lengths[{index}] = {length}: must be from 1 to {capacity}; drop or cut it before packing"
            )
        place = bisect.bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[place]
            row = rows_by_room[room].popleft()
            if not rows_by_room[room]:
                del rows_by_room[room], rooms[place]
        rows[row].append(index)
        left = room - length
        if left and left not in rows_by_room:
            bisect.insort(rooms, left)
            rows_by_room[left] = deque()
        if left:
            rows_by_room[left].append(row)
    return sorted(sorted(row) for row in rows)


def build_row(examples: Sequence[Example], sequence_length: int, pad_id: int) -> PackedRow:
    """Returns the row that holds `examples` one after another, then padding.

    Args:
      examples: together at most `sequence_length` tokens.
      sequence_length: T.
      pad_id: token of the padding.

    Raises:
      ValueError: an example would teach nothing, because none of its tokens after the first is trained.
    """
    row = PackedRow(
        tokens=np.full(sequence_length, pad_id, np.int32),
        loss_mask=np.zeros(sequence_length, np.bool_),
        segment_ids=np.zeros(sequence_length, np.int32),
        positions=np.zeros(sequence_length, np.int32),
    )
    begin = 0
    for segment, example in enumerate(examples, start=1):
        if not example.trained[1:].any():
            raise ValueError(f"{example.row.file}:{example.row.number}: none of its tokens would be trained")
        span = slice(begin, begin + len(example.tokens))
        row.tokens[span] = example.tokens
        row.loss_mask[span] = example.trained
        row.segment_ids[span] = segment
        row.positions[span] = np.arange(len(example.tokens))
        begin = span.stop
    return row


class PackedRows(Sequence[PackedRow]):
    """The rows of a split, planned at once and built one by one as they are asked for."""

    def __init__(self, examples: Sequence[Example], sequence_length: int, pad_id: int) -> None:
        self._examples = examples
        self._sequence_length = sequence_length
        self._pad_id = pad_id
        self._plan = plan_packing([len(example.tokens) for example in examples], sequence_length)

    def __len__(self) -> int:
        return len(self._plan)

    @overload
    def __getitem__(self, index: int) -> PackedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[PackedRow]: ...
    def __getitem__(self, index: int | slice) -> PackedRow | list[PackedRow]:
        """Returns the row at `index`, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return build_row([self._examples[one] for one in self._plan[index]], self._sequence_length, self._pad_id)
