"""Examples to rows of a fixed length, by best-fit decreasing: longest first, each into the fullest row with room.

An example is never split. Each carries its segment number and positions that restart at 0, by which attention keeps
examples of one row apart. The plan depends on the lengths alone and is the same everywhere; within it, examples and
rows stand in the order of the sources, so that unshuffled reading mixes long and short ones. A plan is made for one
window of examples; `jaxwiz.data.layout` strings windows together.
"""

import bisect
import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np


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


@dataclasses.dataclass(frozen=True)
class PackedExamples:
    """The examples of consecutive rows, as small as they can be kept and sent.

    Attributes:
      tokens: int32 [n], of all examples, in the order of the rows.
      trained: bool [n], where a token bears loss.
      lengths: int32 [E], tokens of each example.
      per_row: int32 [R], examples of each row.
    """

    tokens: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    per_row: np.ndarray

    def rows(self, sequence_length: int, pad_id: int) -> Iterator[PackedRow]:
        """Yields the rows, of T = `sequence_length` tokens."""
        example = begin = 0
        for count in self.per_row.tolist():
            lengths = self.lengths[example : example + count].tolist()
            end = begin + sum(lengths)
            yield build_row(self.tokens[begin:end], self.trained[begin:end], lengths, sequence_length, pad_id)
            example, begin = example + count, end


def build_row(
    tokens: np.ndarray, trained: np.ndarray, lengths: Sequence[int], sequence_length: int, pad_id: int
) -> PackedRow:
    """Returns the row that holds some examples one after another, then padding.

    Args:
      tokens: int32 [n], of all examples; n at most `sequence_length`.
      trained: bool [n], where a token bears loss.
      lengths: tokens of each example.
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
    row.tokens[: len(tokens)] = tokens
    row.loss_mask[: len(tokens)] = trained
    begin = 0
    for segment, length in enumerate(lengths, start=1):
        span = slice(begin, begin + length)
        if not trained[begin + 1 : begin + length].any():
            raise ValueError(f"segment {segment} of a row: none of its tokens would be trained")
        row.segment_ids[span] = segment
        row.positions[span] = np.arange(length)
        begin = span.stop
    return row
