"""Encoded examples on disk, in blocks of consecutive source rows: what lies between reading and packing.

A block is encoded on its own, so blocks can be made anywhere and in any order, and one that is there need not be made
again. Their size decides nothing about the results.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxwiz import files
from jaxwiz.data.encode import Example, OverLong, encode_rows
from jaxwiz.data.sources import Reject, Row
from jaxwiz.text.templates import Template
from jaxwiz.text.tokenizer import Tokenizer

ROWS_PER_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class RowBlock:
    """Consecutive source rows to encode.

    Attributes:
      items: in source order; a row that is left out already stands there as its reject.
      heldout: for each, whether its lineage is held out.
    """

    items: Sequence[Row | Reject]
    heldout: Sequence[bool]


@dataclasses.dataclass(frozen=True)
class TokenBlock:
    """The examples of some source rows, one after another.

    Attributes:
      tokens: int32 [n], of all examples.
      trained: bool [n], where a token bears loss.
      lengths: int32 [E], tokens of each example.
      heldout: bool [E], whether an example's lineage is held out.
      rejects: source rows that gave no example, or a cut one, in source order.
    """

    tokens: np.ndarray
    trained: np.ndarray
    lengths: np.ndarray
    heldout: np.ndarray
    rejects: Sequence[Reject]

    def save(self, path: Path) -> None:
        """Writes the block, whole or not at all."""
        rejects = "".join(reject.to_json() + "\n" for reject in self.rejects)
        with files.atomic_file(path) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                tokens=self.tokens,
                trained=np.packbits(self.trained),
                lengths=self.lengths,
                heldout=self.heldout,
                rejects=np.frombuffer(rejects.encode(), np.uint8),
            )


def block_path(folder: Path, number: int) -> Path:
    """Returns the file of a block, counted from 0."""
    return folder / f"{number:06d}.npz"


def encode_blocks(
    tokenizer: Tokenizer,
    template: Template,
    max_tokens: int,
    over_long: OverLong,
    blocks: Iterator[tuple[int, RowBlock]],
) -> Iterator[tuple[int, TokenBlock]]:
    """Yields the examples of each block; for `fan_out`.

    Args:
      tokenizer: encodes the rows.
      template: lays them out.
      max_tokens: the longest example allowed.
      over_long: what to do with a longer one; see `encode_rows`.
      blocks: (number, rows) pairs.
    """
    for number, block in blocks:
        places = {(item.file, item.number): place for place, item in enumerate(block.items)}
        rows = (item for item in block.items if isinstance(item, Row))
        encoded = list(encode_rows(rows, tokenizer, template, max_tokens, over_long))
        examples = [item for item in encoded if isinstance(item, Example)]
        rejects = [item for item in (*block.items, *encoded) if isinstance(item, Reject)]
        yield (
            number,
            TokenBlock(
                tokens=np.concatenate([np.empty(0, np.int32), *(example.tokens for example in examples)]),
                trained=np.concatenate([np.empty(0, np.bool_), *(example.trained for example in examples)]),
                lengths=np.array([len(example.tokens) for example in examples], np.int32),
                heldout=np.array(
                    [block.heldout[places[example.row.file, example.row.number]] for example in examples], np.bool_
                ),
                rejects=sorted(rejects, key=lambda reject: places[reject.file, reject.number]),
            ),
        )


def read_lengths(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns `lengths` and `heldout` of a block, without reading its tokens."""
    with np.load(path) as block:
        return block["lengths"], block["heldout"]


def read_tokens(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns `tokens` and `trained` of a block."""
    with np.load(path) as block:
        tokens = block["tokens"]
        return tokens, np.unpackbits(block["trained"], count=len(tokens)).astype(np.bool_)


def read_reject_lines(path: Path) -> list[str]:
    """Returns the rejects of a block as lines of JSON, each with its line break."""
    with np.load(path) as block:
        return block["rejects"].tobytes().decode().splitlines(keepends=True)
