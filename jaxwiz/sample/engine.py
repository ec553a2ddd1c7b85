"""Generates answers to a batch of prompts: the host's side of `sample/decode.py`.

A batch always has the same number of rows (short ones are filled with rows that are done at once), and the cache grows
with the longest row in steps of 128 slots, so few distinct programs are compiled, and none after the first batches.
No row's result depends on the others: in float32 on a CPU its bits are equal whatever the rest of the batch is.

Between blocks of decode steps the host decodes what was written, looks for stop strings, cuts exactly at the first, and
marks such rows done. What a block wrote behind a stop string is dropped, so block length never shows in a result.
Rows are not refilled while others of their batch go on.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxwiz.checkpoint.weights import load_model_config, load_weights, tokenizer_folder
from jaxwiz.model.cache import init_cache
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params
from jaxwiz.sample.decode import (
    NO_TOKEN,
    DecodeState,
    RowLimits,
    begin_decode,
    decode_block,
    lengthen_cache,
    prefill_chunk,
)
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.sampling import SamplingRows, seed_words
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer

PREFILL_CHUNK_TOKENS = 64
STEPS_PER_BLOCK = 16
CACHE_STEP_SLOTS = 128  # a multiple of PREFILL_CHUNK_TOKENS

OnBlock = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to answer.

    Attributes:
      prompt: its ids, at least one.
      max_new_tokens: most tokens of the answer, at least 1; the end token counts.
      temperature: 0 takes the most probable token.
      top_k: draw from that many most probable tokens; 0: all.
      top_p: draw from the most probable tokens that together reach this probability; 1: all.
      seed: in [0, 2**64); with prompt and settings it fixes the answer.
      stop: texts that end the answer and are no part of it.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was generated for one request.

    Attributes:
      text: the answer, without control tokens and cut before the stop string.
      tokens: the ids generated, up to and with the end token or the token that completed the stop string.
      finish_reason: "stop" (end token or stop string) or "length" (cut at max_new_tokens).
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str


class Engine:
    """Answers batches of at most `batch_size` requests.

    Attributes:
      config: the model's shape.
      tokenizer: the model's tokenizer.
      batch_size: rows of every batch.
    """

    def __init__(
        self,
        params: Params,
        config: LlamaConfig,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        end_ids: Sequence[int] | None = None,
        compute_dtype: jnp.dtype = jnp.float32,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        # One device for all, named outright: arrays that are merely there by default would compile a second time.
        self._device = jax.devices()[0]
        self._params = jax.device_put(params, self._device)
        self._end_ids = tuple(end_ids) if end_ids is not None else (tokenizer.eos_id,)
        self._dtype = compute_dtype

    def generate(self, requests: Sequence[Request], on_block: OnBlock | None = None) -> list[Answer]:
        """Returns the answer to each request, in order.

        Args:
          requests: at most `batch_size`.
          on_block: called after prefill and after each block with (tokens added, answers finished) since the last call.

        Raises:
          ValueError: too many requests, an empty prompt, or one that with its answer exceeds the model's positions.
        """
        self._require_fit(requests)
        if not requests:
            return []
        rows = [_Row(request, self.tokenizer, self._end_ids) for request in requests]
        state, limits = self._prefill(requests)
        self._absorb(rows, np.asarray(state.tokens)[:, None], on_block)
        while not all(row.finish_reason for row in rows):
            active = [row for row in rows if not row.finish_reason]
            slots = _round_up(max(row.position for row in active) + STEPS_PER_BLOCK, CACHE_STEP_SLOTS)
            if slots > state.cache.k.shape[2]:
                state = state._replace(cache=lengthen_cache(state.cache, slots=slots))
            state = state._replace(done=self._put(self._padded([bool(row.finish_reason) for row in rows], True)))
            state, written = decode_block(
                self._params, self.config, state, limits, steps=STEPS_PER_BLOCK, compute_dtype=self._dtype
            )
            self._absorb(rows, np.asarray(written), on_block)
        return [row.answer() for row in rows]

    def _prefill(self, requests: Sequence[Request]) -> tuple[DecodeState, RowLimits]:
        lengths = self._padded([len(request.prompt) for request in requests], 1)
        width = _round_up(int(lengths.max()), PREFILL_CHUNK_TOKENS)
        tokens = np.full((self.batch_size, width), self.tokenizer.pad_id, np.int32)
        for row, request in enumerate(requests):
            tokens[row, : len(request.prompt)] = request.prompt
        slots = _round_up(max(width, int(lengths.max()) + STEPS_PER_BLOCK), CACHE_STEP_SLOTS)
        cache, hidden = jax.device_put(
            (
                init_cache(self.config, self.batch_size, slots, self._dtype),
                jnp.zeros((self.batch_size, self.config.hidden_size), self._dtype),
            ),
            self._device,
        )
        last = self._put(lengths - 1)
        limits = self._limits(requests, lengths)
        for start in range(0, width, PREFILL_CHUNK_TOKENS):
            chunk = self._put(tokens[:, start : start + PREFILL_CHUNK_TOKENS])
            hidden, cache = prefill_chunk(
                self._params, self.config, chunk, self._put(np.array(start, np.int32)), last, hidden, cache,
                limits.end_positions, compute_dtype=self._dtype,
            )  # fmt: skip
        return begin_decode(self._params, self.config, hidden, self._put(lengths), cache, limits), limits

    def _limits(self, requests: Sequence[Request], lengths: np.ndarray) -> RowLimits:
        seeds = np.zeros((self.batch_size, 2), np.uint32)
        seeds[: len(requests)] = seed_words([request.seed for request in requests])
        sampling = SamplingRows(
            temperature=self._put(self._padded([request.temperature for request in requests], 0.0)),
            top_k=self._put(self._padded([request.top_k for request in requests], 0)),
            top_p=self._put(self._padded([request.top_p for request in requests], 1.0)),
            seeds=self._put(seeds),
        )
        end_positions = lengths + self._padded([request.max_new_tokens for request in requests], 1)
        return RowLimits(sampling, self._put(np.array(self._end_ids, np.int32)), self._put(end_positions))

    def _absorb(self, rows: list["_Row"], written: np.ndarray, on_block: OnBlock | None) -> None:
        active = [row for row in rows if not row.finish_reason]
        before = sum(len(row.tokens) for row in active)
        for row, tokens in zip(rows, written, strict=False):  # `written` has the filling rows as well
            if not row.finish_reason:
                row.extend([int(token) for token in tokens if token != NO_TOKEN])
        if on_block is not None:
            added = sum(len(row.tokens) for row in active) - before
            on_block(added, sum(bool(row.finish_reason) for row in active))

    def _padded(self, values: Sequence[float], fill: float) -> np.ndarray:
        """Returns `values` as an array [B] of bool, int32 or float32, after `fill`'s type."""
        dtype = {bool: np.bool_, int: np.int32, float: np.float32}[type(fill)]
        return np.array([*values, *[fill] * (self.batch_size - len(values))], dtype)

    def _put(self, values: np.ndarray) -> jax.Array:
        return jax.device_put(values, self._device)

    def _require_fit(self, requests: Sequence[Request]) -> None:
        if len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for a batch of {self.batch_size}; give fewer at once")
        for request in requests:
            needed = len(request.prompt) + request.max_new_tokens
            if not request.prompt or request.max_new_tokens < 1 or needed > self.config.context_length:
                raise ValueError(
                    f"prompt of {len(request.prompt)} and max_new_tokens = {request.max_new_tokens}: both must be at "
                    f"least 1 and together at most the model's {self.config.context_length} positions"
                )


class _Row:
    """One request's answer so far."""

    def __init__(self, request: Request, tokenizer: Tokenizer, end_ids: tuple[int, ...]) -> None:
        self.tokens: list[int] = []
        self.finish_reason = ""
        self._request = request
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._text: str | None = None

    @property
    def position(self) -> int:
        """Where the newest token stands in the sequence."""
        return len(self._request.prompt) + len(self.tokens) - 1

    def extend(self, tokens: list[int]) -> None:
        """Adds tokens of one block and finishes the row if a stop string, the end token or the limit is among them."""
        seen = len(self.tokens)
        self.tokens += tokens
        if self._cut_at_stop_string(seen) or self.tokens[-1] in self._end_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._request.max_new_tokens:
            self.finish_reason = "length"

    def answer(self) -> Answer:
        """Returns the finished answer."""
        text = self._decoded(len(self.tokens)) if self._text is None else self._text
        return Answer(text, tuple(self.tokens), self.finish_reason)

    def _cut_at_stop_string(self, seen: int) -> bool:
        """Looks for stop strings in the whole text; the first token that completes one, after `seen`, is the last."""
        if not self._request.stop or self._first_stop(self._decoded(len(self.tokens))) is None:
            return False
        for count in range(seen + 1, len(self.tokens) + 1):
            text = self._decoded(count)
            place = self._first_stop(text)
            if place is not None:
                self.tokens = self.tokens[:count]
                self._text = text[:place]
                return True
        return False

    def _first_stop(self, text: str) -> int | None:
        places = [place for stop in self._request.stop if (place := text.find(stop)) >= 0]
        return min(places) if places else None

    def _decoded(self, count: int) -> str:
        tokens = self.tokens[:count]
        if tokens and tokens[-1] in self._end_ids:
            tokens = tokens[:-1]
        return self._tokenizer.decode(tokens, continues=True)


def load_engine(checkpoint: Path, template: str, batch_size: int, dtype: str = "float32") -> Engine:
    """Returns an engine over a checkpoint's weights and tokenizer.

    Args:
      checkpoint: a checkpoint folder.
      template: the instruction template; names the tokens that end an answer beside EOS.
      batch_size: rows of every batch.
      dtype: "float32" or "bfloat16", of weights, cache and matmuls.

    Raises:
      UserError: no checkpoint, no usable tokenizer, or no such template.
    """
    tokenizer = load_tokenizer(tokenizer_folder(checkpoint))
    return Engine(
        load_weights(checkpoint, dtype=jnp.dtype(dtype)),
        load_model_config(checkpoint),
        tokenizer,
        batch_size=batch_size,
        end_ids=Prompter(tokenizer, template).end_ids,
        compute_dtype=jnp.dtype(dtype),
    )


def cache_slots(prompt_tokens: int, max_new_tokens: int) -> int:
    """Returns the most cache slots a row that a batch with such a row comes to need."""
    prefill = _round_up(prompt_tokens, PREFILL_CHUNK_TOKENS)
    return _round_up(max(prefill, prompt_tokens + max_new_tokens + STEPS_PER_BLOCK), CACHE_STEP_SLOTS)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
