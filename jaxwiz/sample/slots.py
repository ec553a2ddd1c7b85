"""What the host knows of a request under way: how much of its prompt is read, where it stands, its text so far."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxwiz.sample.decode import NO_TOKEN, Block, SlotRows
from jaxwiz.sample.requests import MAX_LOGIT_BIASES, Request, TokenEvent, TokenLogprob
from jaxwiz.sample.sampling import SamplingRows, seed_words
from jaxwiz.text.streaming import StreamingText
from jaxwiz.text.tokenizer import Tokenizer


class Slot:
    """A request under way.

    Attributes:
      id: the request's number.
      request: what was asked.
      pages: its pages by position.
      read: how many tokens of its prompt are in the cache or on their way there.
      tokens: what was drawn.
      finish_reason: "" while it is under way.
    """

    def __init__(self, number: int, request: Request, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        self.id = number
        self.request = request
        self.pages: list[int] = []
        self.read = 0
        self.tokens: list[int] = []
        self.finish_reason = ""
        self._end_ids = () if request.ignore_end else end_ids
        self._text = StreamingText(tokenizer, request.stop)

    @property
    def decodes(self) -> bool:
        """Whether the whole prompt is read."""
        return self.read == len(self.request.prompt)

    @property
    def end(self) -> int:
        """How many tokens prompt and answer are at most."""
        return len(self.request.prompt) + self.request.max_new_tokens

    @property
    def position(self) -> int:
        """Where the next token will stand."""
        return len(self.request.prompt) + len(self.tokens)

    def writes_up_to(self, steps: int) -> int:
        """Returns how many tokens are in the cache after a block of `steps`, at most; the last one never gets there."""
        return min(self.position + steps, self.end - 1)

    def absorb(self, row: int, block: Block) -> TokenEvent:
        """Returns the event of a block's tokens for this slot, which is row `row`, and notes them."""
        seen, text = len(self.tokens), ""
        logprobs: list[TokenLogprob] = []
        for column in np.flatnonzero(block.tokens[row] != NO_TOKEN):
            token = int(block.tokens[row, column])
            self.tokens.append(token)
            if self.request.logprobs is not None:
                logprobs.append(_logprob(block, row, int(column), self.request.logprobs))
            if token in self._end_ids:
                self.finish_reason = "stop"
            else:
                text += self._text.add(token)
                if self._text.stopped:
                    self.finish_reason = "stop"
                elif len(self.tokens) == self.request.max_new_tokens:
                    self.finish_reason = "length"
            if self.finish_reason:
                text += self._text.finish()
                self.finish_reason = "stop" if self._text.stopped else self.finish_reason
                break
        return TokenEvent(self.id, tuple(self.tokens[seen:]), text, tuple(logprobs), self.finish_reason)


def slot_rows(slots: Sequence[Slot | None], table_columns: int, vocab_size: int) -> SlotRows:
    """Returns what the device must know of all slots for a block, as NumPy arrays.

    Args:
      slots: each slot's request; None where there is none. Those whose prompt is not yet read take no part.
      table_columns: N, most pages of a row.
      vocab_size: V, with padding.
    """
    count = len(slots)
    active = [(row, slot) for row, slot in enumerate(slots) if slot is not None and slot.decodes]
    sampling = SamplingRows(
        temperature=_filled(count, np.float32, 0),
        top_k=_filled(count, np.int32, 0),
        top_p=_filled(count, np.float32, 1),
        min_p=_filled(count, np.float32, 0),
        penalty=_filled(count, np.float32, 1),
        bias_ids=_filled((count, MAX_LOGIT_BIASES), np.int32, vocab_size),
        biases=_filled((count, MAX_LOGIT_BIASES), np.float32, 0),
        seeds=_filled((count, 2), np.uint32, 0),
    )
    rows = SlotRows(
        positions=_filled(count, np.int32, 0),
        done=_filled(count, np.bool_, 1),
        table=_filled((count, table_columns), np.int32, 0),
        end_positions=_filled(count, np.int32, 1),
        ignore_end=_filled(count, np.bool_, 0),
        logprobs=_filled(count, np.bool_, 0),
        sampling=sampling,
    )
    for row, slot in active:
        request = slot.request
        rows.positions[row] = slot.position
        rows.done[row] = False
        rows.table[row, : len(slot.pages)] = slot.pages
        rows.end_positions[row] = slot.end
        rows.ignore_end[row] = request.ignore_end
        rows.logprobs[row] = request.logprobs is not None
        sampling.temperature[row] = request.temperature
        sampling.top_k[row] = request.top_k
        sampling.top_p[row] = request.top_p
        sampling.min_p[row] = request.min_p
        sampling.penalty[row] = request.repetition_penalty
        sampling.seeds[row] = seed_words([request.seed])[0]
        for place, (token, bias) in enumerate(request.logit_bias):
            sampling.bias_ids[row, place], sampling.biases[row, place] = token, bias
    return rows


def chunk_rows(
    slot: Slot, row: int, tokens: Sequence[int], start: int, count: int, width: int, table_columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns tokens [1, width], bounds [4] and table [1, N] of a chunk of `tokens`, as `prefill_chunk` takes them.

    Args:
      slot: holds the pages.
      row: which slot it is.
      tokens: the whole prompt, or what is scored.
      start: where the chunk begins.
      count: how many tokens it has.
      width: how many the program has room for.
      table_columns: N, most pages of a row.
    """
    chunk = np.zeros((1, width), np.int32)
    chunk[0, :count] = tokens[start : start + count]
    table = np.zeros((1, table_columns), np.int32)
    table[0, : len(slot.pages)] = slot.pages
    return chunk, np.array([row, start, count, slot.end], np.int32), table


def _filled(shape: int | tuple[int, ...], dtype: type[np.generic], value: int) -> Any:
    return np.full(shape, value, dtype)


def _logprob(block: Block, row: int, column: int, top: int) -> TokenLogprob:
    ids, values = block.top_ids[row, column, :top], block.top_logprobs[row, column, :top]
    return TokenLogprob(float(block.logprobs[row, column]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
