"""Keeps the device full: requests wait, take a slot, have their prompt read in chunks, decode in blocks, and leave.

The host's side of `sample/decode.py`. `step` is one round trip: free slots are given to waiting requests, a number of
prompt tokens is read, and all slots that have read theirs decode a block of steps. The host then looks for end tokens
and stop strings; what a block drew behind one is dropped, so block length never shows in a result.

The cache is paged (`model/pages.py`): a request holds pages for the tokens that it has, not for those that it may come
to have, and whole pages of a prompt that were read once are not read again by requests that begin with the same tokens.
A request is admitted only if the cache could grow to hold its longest answer, so none ever has to be put off again.

In float32 on a CPU a request's result is equal to the bit whatever the engine does beside it and whenever it came: all
slots decode in one shape, a prompt is cut into chunks by its own length and read alone, and attention adds a row's
pages one by one. On accelerators the number of pages attended to at once follows the longest row, and near-ties may
fall otherwise.
"""

import collections
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.inference import compute_dtype, inference_weights
from jaxwiz.model.lora import Adapters
from jaxwiz.model.pages import init_pages
from jaxwiz.model.params import Params
from jaxwiz.sample.decode import (
    Block,
    DecodeState,
    Model,
    decode_block,
    lengthen_cache,
    prefill_chunk,
    score_chunk,
    set_seen,
)
from jaxwiz.sample.pace import ELSEWHERE, ON_CPU, PAGE_TOKENS
from jaxwiz.sample.page_table import NoPageError, PageTable
from jaxwiz.sample.placement import Placement
from jaxwiz.sample.requests import Answer, Request, RequestError, Statistics, TokenEvent, joined, require_answerable
from jaxwiz.sample.slots import Slot, chunk_rows, slot_rows
from jaxwiz.text.tokenizer import Tokenizer

OnBlock = Callable[[int, int], None]


class Engine:
    """Answers requests with one model. Not thread-safe: one thread makes all calls.

    Attributes:
      config: the model's shape.
      tokenizer: the model's tokenizer.
      slots: requests that can be under way at once.
    """

    def __init__(
        self,
        params: Params,
        config: ModelConfig,
        tokenizer: Tokenizer,
        *,
        slots: int,
        end_ids: Sequence[int] | None = None,
        weights_dtype: str = "float32",
        cache_dtype: str = "float32",
        adapters: Adapters | None = None,
        vocab_size: int | None = None,
        cache_tokens: int | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Lays the weights out for generation; `params` are not needed afterwards.

        Args:
          params: as `model/params.py` lays them out.
          config: the model's shape.
          tokenizer: the model's tokenizer.
          slots: requests that can be under way at once.
          end_ids: tokens that end an answer; None: the tokenizer's EOS.
          weights_dtype: "float32", "bfloat16" or "int8".
          cache_dtype: likewise.
          adapters: low-rank corrections of the projections.
          vocab_size: the vocabulary without rows that only pad it, which are never drawn; None: there are none.
          cache_tokens: most tokens that the cache grows to; None: as many as the slots can come to need.
          mesh: devices to split weights and cache over; None: the first device.
        """
        self.config = config
        self.tokenizer = tokenizer
        self.slots = slots
        self._place = Placement(mesh, slots)
        self._end_ids = tuple(end_ids) if end_ids is not None else (tokenizer.eos_id,)
        self._end_array = self._place.whole(np.array(self._end_ids, np.int32))
        self._vocab_size = vocab_size or config.vocab_size
        weights = self._place.weights(inference_weights(params, config, weights_dtype))
        self._model = Model(weights, adapters and self._place.whole(adapters), mesh)
        self._pace = ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE
        self._columns = -(-config.context_length // PAGE_TOKENS)
        self._most_pages = slots * self._columns if cache_tokens is None else max(1, cache_tokens // PAGE_TOKENS)
        self._pages = PageTable(min(self._most_pages, 2 * slots), PAGE_TOKENS)
        self._shares = not config.keys_follow_length  # its keys depend on the answer's length
        dtype = compute_dtype(weights_dtype)
        cache = init_pages(config, self._pages.count, PAGE_TOKENS, jnp.dtype(cache_dtype))
        self._state = DecodeState(
            self._place.cache(cache),
            self._place.rows(np.zeros((slots, config.hidden_size), dtype)),
            self._place.rows(np.zeros((slots, config.vocab_size), np.bool_)),
        )
        self._slots: list[Slot | None] = [None] * slots
        self._waiting: collections.deque[Slot] = collections.deque()
        self._promised = 0  # pages that the requests under way may come to need
        self._next_id = 0
        self._prompt_tokens = self._shared_tokens = self._new_tokens = self._finished = 0
        self._busy_seconds = 0.0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not any(self._slots)

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    def statistics(self) -> Statistics:
        """Returns the counters and the state of the moment."""
        return Statistics(
            slots=self.slots,
            slots_used=sum(slot is not None for slot in self._slots),
            waiting=len(self._waiting),
            cache_tokens=self._pages.in_use * PAGE_TOKENS,
            cache_capacity=self._pages.count * PAGE_TOKENS,
            prompt_tokens=self._prompt_tokens,
            shared_tokens=self._shared_tokens,
            new_tokens=self._new_tokens,
            finished=self._finished,
            busy_seconds=self._busy_seconds,
        )

    def reserve(self, lengths: Sequence[int]) -> None:
        """Lets the cache grow at once to what requests of these lengths, answers included, may need at a time.

        It grows by itself where they need it, but each new size has its programs compiled.
        """
        pages = sum(sorted(map(self._pages_of, lengths))[-self.slots :])
        self._grow(min(self._most_pages, 1 << max(0, pages - 1).bit_length()))

    def submit(self, request: Request) -> int:
        """Returns the number of a request that now waits for a slot.

        Raises:
          RequestError: this model, or a cache of this size, cannot answer it.
        """
        require_answerable(request, self._vocab_size, self.config.context_length)
        slot = Slot(self._next_id, request, self.tokenizer, self._end_ids)
        if self._pages_of(slot.end) > self._most_pages:
            raise RequestError(
                f"max_new_tokens = {request.max_new_tokens}: with the prompt that is {slot.end} tokens, and the cache "
                f"holds {self._most_pages * PAGE_TOKENS}; lower it or give the engine a larger cache"
            )
        self._next_id += 1
        self._waiting.append(slot)
        return slot.id

    def cancel(self, number: int) -> None:
        """Drops a request, waiting or under way; one that is neither is no fault."""
        self._waiting = collections.deque(slot for slot in self._waiting if slot.id != number)
        for row, slot in enumerate(self._slots):
            if slot is not None and slot.id == number:
                self._leave(row)

    def step(self) -> list[TokenEvent]:
        """Admits, reads prompts, decodes a block; returns what was added, an event for each request that got tokens."""
        began = time.monotonic()
        self._admit()
        self._read_prompts()
        events = self._decode()
        self._busy_seconds += time.monotonic() - began
        return events

    def generate(self, requests: Sequence[Request], on_block: OnBlock | None = None) -> list[Answer]:
        """Returns the answer to each request, in order; the engine must be idle.

        Args:
          requests: as many as you like.
          on_block: called after each step with (tokens added, answers finished) by it.

        Raises:
          RequestError: a request cannot be answered; none is begun.
        """
        for request in requests:
            require_answerable(request, self._vocab_size, self.config.context_length)
        order = {self.submit(request): place for place, request in enumerate(requests)}
        parts: list[list[TokenEvent]] = [[] for _ in requests]
        self.reserve([len(request.prompt) + request.max_new_tokens for request in requests])
        while not self.idle:
            events = self.step()
            for event in events:
                parts[order[event.id]].append(event)
            if on_block is not None:
                on_block(sum(len(event.tokens) for event in events), sum(bool(event.finish_reason) for event in events))
        return [joined(events) for events in parts]

    def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Returns the log-probability, in nats, of each token of a continuation given all before it.

        The model's own, as `Request.logprobs`. Other requests may be under way.

        Args:
          prompt: at least one id.
          continuation: at least one id.

        Raises:
          RequestError: empty, too long, ids outside the vocabulary, or no room in the cache beside other requests.
        """
        tokens = [*prompt, *continuation]
        if not continuation or not all(0 <= token < self._vocab_size for token in continuation):
            raise RequestError(f"continuation: must be at least one id in [0, {self._vocab_size}); use the tokenizer")
        require_answerable(Request(prompt, len(continuation)), self._vocab_size, self.config.context_length)
        if self._promised + self._pages_of(len(tokens)) > self._most_pages:
            raise RequestError(f"continuation: no room for {len(tokens)} tokens in the cache; wait for other requests")
        row = Slot(-1, Request(prompt, len(continuation)), self.tokenizer, ())
        digests = self._begin_reading(row)
        found: list[np.ndarray] = []
        first = row.read
        for start, count, width in self._pace.chunks_between(row.read, len(tokens) - 1):
            targets = np.zeros(width, np.int32)
            targets[:count] = tokens[start + 1 : start + 1 + count]
            self._hold(row, start + count)
            logprobs = self._score_chunk(row, tokens, targets, start, count, self._chunk_columns(start + count))
            found.append(np.asarray(logprobs)[:count])
            row.read = start + count
        self._know(row, digests)
        self._pages.release(row.pages)
        return np.concatenate(found)[len(prompt) - 1 - first :].tolist()

    def warm_up(self) -> None:
        """Lets the cache grow to its full size and compiles every program; the engine must be idle.

        No request waits for the compiler afterwards, whatever it asks for.
        """
        self._grow(self._most_pages)
        row = Slot(-1, Request([0], 1), self.tokenizer, ())
        self._hold(row, 1)
        counts = range(1, self._columns + 1)
        for columns in {self._chunk_columns(pages * PAGE_TOKENS) for pages in counts}:
            for width in self._pace.chunks:
                self._read_chunk(row, 0, [0], 0, 1, width, columns)
                self._score_chunk(row, [0], np.zeros(width, np.int32), 0, 1, columns)
        for columns in {self._pace.columns_of_block(pages, self._columns) for pages in counts}:
            self._decode_block(columns)
        self._note_seen(0, [0])
        self._pages.release(row.pages)

    def _admit(self) -> None:
        for row in range(self.slots):
            if self._slots[row] is None and self._waiting:
                needed = self._pages_of(self._waiting[0].end)
                if self._promised + needed > self._most_pages:
                    return
                self._promised += needed
                self._slots[row] = self._waiting.popleft()

    def _read_prompts(self) -> None:
        """Reads prompts in the order in which they came, all of them unless others decode meanwhile."""
        reading = sorted(
            ((slot.id, row) for row, slot in enumerate(self._slots) if slot is not None and not slot.decodes)
        )
        decoding = len(reading) < sum(slot is not None for slot in self._slots)
        left = self._pace.prompt_tokens
        for _, row in reading:
            slot = self._slots[row]
            assert slot is not None
            if decoding and left <= 0:
                break
            prompt = slot.request.prompt
            # What this prompt shares may just have been read for the one before.
            digests = self._begin_reading(slot) if not slot.read else self._digests(slot)
            for start, count, width in self._pace.chunks_between(slot.read, len(prompt)):
                if decoding and left <= 0:
                    break
                left -= width
                self._hold(slot, start + count)
                self._read_chunk(slot, row, prompt, start, count, width, self._chunk_columns(start + count))
                slot.read = start + count
            self._know(slot, digests)
            if slot.decodes and slot.request.repetition_penalty != 1:
                self._note_seen(row, prompt)

    def _decode(self) -> list[TokenEvent]:
        decoding = [(row, slot) for row, slot in enumerate(self._slots) if slot is not None and slot.decodes]
        if not decoding:
            return []
        for _, slot in decoding:
            self._hold(slot, slot.writes_up_to(self._pace.steps))
        longest = max(len(slot.pages) for _, slot in decoding)
        block = self._decode_block(self._pace.columns_of_block(longest, self._columns))
        wants_logprobs = any(slot.request.logprobs is not None for _, slot in decoding)
        found = jax.device_get(block) if wants_logprobs else block._replace(tokens=jax.device_get(block.tokens))
        events = []
        for row, slot in decoding:
            events.append(slot.absorb(row, found))
            self._new_tokens += len(events[-1].tokens)
            if slot.finish_reason:
                self._leave(row)
        return events

    def _leave(self, row: int) -> None:
        slot = self._slots[row]
        assert slot is not None
        self._pages.release(slot.pages)
        self._promised -= self._pages_of(slot.end)
        self._slots[row] = None
        self._finished += 1

    def _begin_reading(self, slot: Slot) -> list[bytes]:
        """Gives a slot the pages that its prompt shares with earlier ones; returns what its pages will be known by."""
        digests = self._digests(slot)
        slot.pages = self._pages.shared(digests)
        slot.read = len(slot.pages) * PAGE_TOKENS
        self._shared_tokens += slot.read
        self._prompt_tokens += len(slot.request.prompt)
        return digests

    def _digests(self, slot: Slot) -> list[bytes]:
        return self._pages.digests(slot.request.prompt) if self._shares else []

    def _know(self, slot: Slot, digests: Sequence[bytes]) -> None:
        for digest, page in zip(digests[: slot.read // PAGE_TOKENS], slot.pages, strict=False):
            self._pages.know(digest, page)

    def _read_chunk(
        self, slot: Slot, row: int, tokens: Sequence[int], start: int, count: int, width: int, columns: int | None
    ) -> None:
        chunk, bounds, table = self._place.whole(chunk_rows(slot, row, tokens, start, count, width, self._columns))
        cache, hidden = prefill_chunk(
            self._model, self.config, chunk, bounds, table, self._state.cache, self._state.hidden, columns=columns
        )
        self._state = self._state._replace(cache=cache, hidden=hidden)

    def _score_chunk(
        self, slot: Slot, tokens: Sequence[int], targets: np.ndarray, start: int, count: int, columns: int | None
    ) -> jax.Array:
        arrays = chunk_rows(slot, 0, tokens, start, count, len(targets), self._columns)
        chunk, bounds, table, following = self._place.whole((*arrays, targets))
        cache, logprobs = score_chunk(
            self._model, self.config, chunk, following, bounds, table, self._state.cache,
            columns=columns, vocab_size=self._vocab_size,
        )  # fmt: skip
        self._state = self._state._replace(cache=cache)
        return logprobs

    def _decode_block(self, columns: int | None) -> Block:
        rows = slot_rows(self._slots, self._columns, self.config.vocab_size)
        self._state, block = decode_block(
            self._model, self.config, self._state, self._place.rows(rows), self._end_array,
            steps=self._pace.steps, columns=columns, vocab_size=self._vocab_size,
        )  # fmt: skip
        return block

    def _note_seen(self, row: int, tokens: Sequence[int]) -> None:
        seen = np.zeros(self.config.vocab_size, np.bool_)
        seen[list(tokens)] = True
        place = self._place.whole(np.array(row, np.int32))
        self._state = self._state._replace(seen=set_seen(self._state.seen, place, self._place.whole(seen)))

    def _chunk_columns(self, tokens: int) -> int | None:
        return self._pace.columns_of_chunk(self._pages_of(tokens), self._columns)

    def _hold(self, slot: Slot, tokens: int) -> None:
        """Gives a slot pages for as many tokens, letting the cache grow if need be."""
        while len(slot.pages) < self._pages_of(tokens):
            try:
                slot.pages.append(self._pages.take())
            except NoPageError:
                self._grow(min(self._most_pages, 2 * self._pages.count))

    def _grow(self, pages: int) -> None:
        if pages > self._pages.count:
            self._pages.grow(pages)
            cache = self._place.cache(lengthen_cache(self._state.cache, pages=pages))
            self._state = self._state._replace(cache=cache)

    def _pages_of(self, tokens: int) -> int:
        return -(-tokens // PAGE_TOKENS)
