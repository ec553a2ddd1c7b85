"""Rows of text to examples of tokens: template, tokenizer, and what to do with an example that is longer than a row.

Rows are encoded in blocks, so that the tokenizer works on many texts at once, on all cores; while it does, the Python
part of the neighbouring blocks goes on. An answer is never cut: an example is dropped, or its prompt shortened, or the
run stops, as `over_long` says, and each case is reported as a `Reject`. So is a conversation that the template refuses.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from jaxwiz.data.sources import Reject, Row
from jaxwiz.files import UserError
from jaxwiz.text.chat_template import TemplateError
from jaxwiz.text.encoding import encode_conversations
from jaxwiz.text.messages import Message
from jaxwiz.text.pieces import Piece
from jaxwiz.text.templates import Template
from jaxwiz.text.tokenizer import Tokenizer

OverLong = Literal["drop", "truncate_prompt", "error"]
OVER_LONG = "over-long"
PROMPT_CUT = "prompt cut"
REFUSED = "refused by template"
ROWS_PER_BLOCK = 512
_BLOCKS_AT_ONCE = 4  # in the tokenizer, which lets Python go on, or waiting for it; and one in Python


class EncodeError(UserError):
    """An example that the settings do not allow; the message names file, row, rule and remedy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One conversation as tokens.

    Attributes:
      row: the text it was made from, as it was before any cut.
      tokens: int32 [n], prompts, answers and EOS.
      trained: bool [n], true where a token bears loss: in every answer, with the token that ends its turn, and at EOS.
    """

    row: Row
    tokens: np.ndarray
    trained: np.ndarray


def encode_rows(
    rows: Iterable[Row], tokenizer: Tokenizer, template: Template, max_tokens: int, over_long: OverLong
) -> Iterator[Example | Reject]:
    """Yields the example of each row, in order, and a reject for each that was refused, dropped or cut.

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
    pending: collections.deque[concurrent.futures.Future[list[Example | Reject]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(_BLOCKS_AT_ONCE) as pool:
        while block := list(itertools.islice(remaining, ROWS_PER_BLOCK)):
            pending.append(pool.submit(encode_block, block, tokenizer, template, max_tokens, over_long))
            if len(pending) > _BLOCKS_AT_ONCE:
                yield from pending.popleft().result()
        for done in pending:
            yield from done.result()


def encode_block(
    rows: Sequence[Row], tokenizer: Tokenizer, template: Template, max_tokens: int, over_long: OverLong
) -> list[Example | Reject]:
    """Returns what `encode_rows` yields for rows that are encoded together; see there."""
    conversations: list[list[Piece]] = []
    refusals: list[str] = []
    for row in rows:
        try:
            conversations.append(template.conversation(row.messages))
            refusals.append("")
        except TemplateError as error:
            conversations.append([])
            refusals.append(str(error))
    items: list[Example | Reject] = []
    encoded = encode_conversations(tokenizer, conversations)
    for row, refusal, (tokens, trained) in zip(rows, refusals, encoded, strict=True):
        if refusal:
            items.append(Reject(row.file, row.number, REFUSED, refusal))
        elif len(tokens) <= max_tokens:
            items.append(Example(row, tokens, trained))
        else:
            items += _fit(row, len(tokens), tokenizer, template, max_tokens, over_long)
    return items


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
        yield Reject(row.file, row.number, OVER_LONG, f"{found}; what must stay leaves no room for a first prompt")
        return
    lost, tokens, trained = cut
    yield Reject(row.file, row.number, PROMPT_CUT, f"{found}; {lost} characters cut from its prompt", kept=True)
    yield Example(row, tokens, trained)


def _cut_prompt(
    row: Row, tokenizer: Tokenizer, template: Template, max_tokens: int
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Returns how many characters of the first prompt must go, and the encoding without them; None if all must go.

    The end of its input goes first, then the end of its instruction; later turns stay as they are. Texts are cut rather
    than tokens, so that the template stays whole around them and a cut prompt is encoded as any other.
    """
    content, context = row.question.content, row.question.input
    prompt_characters = len(content) + len(context)
    best = None
    fits, too_many = 0, prompt_characters
    while too_many - fits > 1:
        kept = (fits + too_many) // 2
        shortened = Message("user", content[:kept], context[: max(kept - len(content), 0)])
        messages = [shortened if message is row.question else message for message in row.messages]
        [(tokens, trained)] = encode_conversations(tokenizer, [template.conversation(messages)])
        if len(tokens) <= max_tokens:
            fits, best = kept, (prompt_characters - kept, tokens, trained)
        else:
            too_many = kept
    return best
