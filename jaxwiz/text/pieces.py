"""What templates make of a conversation: pieces of text and control tokens, each with whether it is trained.

Pieces, not one string, for two reasons. Control tokens stay apart from text, so that a user's text can never forge
them. And prompt and answer are encoded piece by piece, so that the border of the loss mask is exact: no token spans
both, which masking by the length of the prompt alone doesn't ensure.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

PieceKind = Literal["text", "control", "begin", "end"]


class Piece(NamedTuple):
    """A part of a conversation that is encoded on its own.

    Attributes:
      text: the text, or a control token's exact string; empty for "begin" and "end".
      kind: "text"; "control", a control token; "begin", the tokenizer's BOS where its own settings begin every text
        with it, else nothing; "end", the tokenizer's EOS.
      trained: whether its tokens bear loss.
    """

    text: str
    kind: PieceKind = "text"
    trained: bool = False


BEGIN = Piece("", "begin")
END = Piece("", "end", trained=True)


def control(token: str, trained: bool = False) -> Piece:
    """Returns the piece of a control token."""
    return Piece(token, "control", trained)


def text_of(pieces: Iterable[Piece]) -> str:
    """Returns pieces as one text, control tokens by their strings; BOS and EOS by the tokenizer's rule have none."""
    return "".join(piece.text for piece in pieces)


def until_last_trained(pieces: list[Piece]) -> list[Piece]:
    """Returns the pieces up to the last trained one: what follows it is never predicted and conditions nothing."""
    for last in range(len(pieces) - 1, -1, -1):
        if pieces[last].trained:
            return pieces[: last + 1]
    return pieces
