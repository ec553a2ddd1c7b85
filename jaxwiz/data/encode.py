"""Rows of text to examples of tokens: template, tokenizer, and what to do with an example that is longer than a row.

Rows are encoded in blocks, so that the tokenizer works on many texts at once. An answer is never cut: an example is
dropped, or its prompt shortened, or the run stops, as `over_long` says, and each case is reported as a `Reject`.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from jaxwiz.data.sources import Reject, Row
from jaxwiz.files import UserError
from jaxwiz.text.templates import Template, encode_conversations, encode_example, example_pieces
from jaxwiz.text.tokenizer import Tokenizer

OverLong = Literal["drop", "truncate_prompt", "error"]
OVER_LONG = "over-long"
PROMPT_CUT = "prompt cut"
ROWS_PER_BLOCK = 512


class EncodeError(UserError):
    """An example that the settings do not allow; the message names file, row, rule and remedy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One instruction with its answer as tokens.

    Attributes:
      row: the text it was made from, as it was before any cut.
      tokens: int32 [n], prompt, answer and EOS.
      trained: bool [n], true where a token bears loss: in the answer and at EOS.
    """

    row: Row
    tokens: np.ndarray
    trained: np.ndarray


def encode_rows(
    rows: Iterable[Row], tokenizer: Tokenizer, template: Template, max_tokens: int, over_long: OverLong
) -> Iterator[Example | Reject]:
    """Yields the example of each row, in order, and a reject for each that was dropped or cut.

    Args:
      rows: usable rows.
      tokenizer: encodes them.
      template: lays them out.
      max_tokens: the longest example allowed.
      over_long: what to do with a longer one: "drop", "truncate_prompt" or "error".

    Raises:
      EncodeError: an example is too long and `over_long` is "error".
    """
    remaining = iter(rows)
    while block := list(itertools.islice(remaining, ROWS_PER_BLOCK)):
        conversations = [example_pieces(template, row.instruction, row.input, row.output) for row in block]
        encoded = encode_conversations(tokenizer, conversations, append_eos=True)
        for row, (tokens, trained) in zip(block, encoded, strict=True):
            if len(tokens) <= max_tokens:
                yield _example(row, tokens, trained)
            else:
                yield from _fit(row, len(tokens), tokenizer, template, max_tokens, over_long)


def _example(row: Row, tokens: list[int], trained: list[bool]) -> Example:
    return Example(row, np.asarray(tokens, np.int32), np.asarray(trained, np.bool_))


def _fit(
    row: Row, length: int, tokenizer: Tokenizer, template: Template, max_tokens: int, over_long: OverLong
) -> Iterator[Example | Reject]:
    found = f"{length} tokens, a row has {max_tokens}"
    if over_long == "error":
        raise EncodeError(
            f"{row.file}:{row.number}: the example has {found}; "
            "raise sequence_length, or set over_long to 'drop' or 'truncate_prompt'"
        )
    if over_long == "drop":
        yield Reject(row.file, row.number, OVER_LONG, found)
        return
    cut = _cut_prompt(row, tokenizer, template, max_tokens)
    if cut is None:
        yield Reject(row.file, row.number, OVER_LONG, f"{found}; its answer alone does not leave room for a prompt")
        return
    lost, tokens, trained = cut
    yield Reject(row.file, row.number, PROMPT_CUT, f"{found}; {lost} characters cut from its prompt", kept=True)
    yield _example(row, tokens, trained)


def _cut_prompt(
    row: Row, tokenizer: Tokenizer, template: Template, max_tokens: int
) -> tuple[int, list[int], list[bool]] | None:
    """Returns how many characters of the prompt must go, and the encoding without them; None if all must go.

    The end of the input goes first, then the end of the instruction. Texts are cut rather than tokens, so that the
    template stays whole around them and a cut prompt is encoded as any other.
    """
    prompt_characters = len(row.instruction) + len(row.input)
    best = None
    fits, too_many = 0, prompt_characters
    while too_many - fits > 1:
        kept = (fits + too_many) // 2
        instruction, context = row.instruction[:kept], row.input[: max(kept - len(row.instruction), 0)]
        tokens, trained = encode_example(tokenizer, template, instruction, context, row.output)
        if len(tokens) <= max_tokens:
            fits, best = kept, (prompt_characters - kept, tokens, trained)
        else:
            too_many = kept
    return best
