"""Pieces to token ids and loss flags, many conversations at once: the one way from text to what a model reads.

Training and generation both encode here, so a model sees at generation what it saw in training. All texts of a call go
through the tokenizer together, each different one once, and the ids are gathered into one array, of which every
conversation gets its part.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from jaxwiz.text.pieces import Piece
from jaxwiz.text.tokenizer import Tokenizer


def encode_conversations(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[Piece]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns of each conversation its ids, int32 [n], and whether each bears loss, bool [n].

    A text that begins a sequence, or follows BOS, is encoded as such; one that follows other pieces continues them.
    Neither BOS nor EOS is ever doubled.

    Args:
      tokenizer: the tokenizer.
      conversations: the pieces of each, in order.

    Raises:
      TokenizerError: the tokenizer lacks a control token of the template.
    """
    begin = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    end = [tokenizer.eos_id]
    controls: dict[str, list[int]] = {}
    openings: dict[str, list[int]] = {}  # ids of texts; empty until all are known, and then encoded together
    followings: dict[str, list[int]] = {}
    encoded: list[list[int]] = []
    trained: list[bool] = []
    pieces_before = [0]  # of each conversation, in all
    for pieces in conversations:
        texts = openings
        previous: list[int] | None = None  # the piece before, where it is no text
        for text, kind, bears_loss in pieces:
            if kind == "text":
                if not text:
                    continue
                ids = texts.setdefault(text, [])
                texts = followings
                previous = None
            elif kind == "control":
                ids = controls.get(text) or controls.setdefault(text, [tokenizer.special_id(text)])
                texts = openings if ids[0] == tokenizer.bos_id else followings
                if ids == previous == begin:
                    continue
                previous = ids
            else:
                ids = begin if kind == "begin" else end
                if ids == previous == end:
                    continue
                previous = ids
            encoded.append(ids)
            trained.append(bears_loss)
        pieces_before.append(len(encoded))
    for texts, continues in ((openings, False), (followings, True)):
        for place, ids in zip(texts.values(), tokenizer.encode_batch(list(texts), continues), strict=True):
            place.extend(ids)
    return _gather(encoded, trained, pieces_before)


def _gather(
    encoded: list[list[int]], trained: list[bool], pieces_before: list[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    tokens_before = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter(itertools.chain.from_iterable(encoded), np.int32, tokens_before[-1])
    flags = np.repeat(np.asarray(trained, np.bool_), lengths)
    borders = tokens_before[pieces_before].tolist()
    return [(tokens[first:last], flags[first:last]) for first, last in itertools.pairwise(borders)]


def encode_one(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> tuple[list[int], list[bool]]:
    """Returns the ids of a single conversation, and whether each bears loss, as lists."""
    [(tokens, trained)] = encode_conversations(tokenizer, [list(pieces)])
    return tokens.tolist(), trained.tolist()
