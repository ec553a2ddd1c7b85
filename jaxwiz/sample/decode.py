"""The device programs of generation: prefill of one prompt's chunk, blocks of decode steps over all slots, scoring.

A prompt goes through the model chunk by chunk, alone, in chunks whose widths follow from its own length. Decoding runs
up to `steps` tokens a call in a `while_loop` that ends early once every slot is done; the host looks only between
blocks. A slot that is done writes nothing. A slot's next token is drawn from a hidden state that stays on the device:
prefill leaves the first, each step the next. The cache is donated: it is updated in place.

Programs are cached by jit: they depend on the number of slots, the size of the cache, chunk widths and the model's
shape alone. Settings, end tokens and lengths are data. What stands where is `sample/engine.py`'s affair.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.inference import InferenceWeights, head_logits, paged_hidden_states
from jaxwiz.model.lora import Adapters
from jaxwiz.model.pages import PagedCache, PageView
from jaxwiz.sample.requests import MAX_TOP_LOGPROBS
from jaxwiz.sample.sampling import SamplingRows, sample_tokens

NO_TOKEN = -1  # in a block's output: the slot was done before this step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
    """What generates.

    Attributes:
      weights: laid out for generation.
      adapters: low-rank corrections beside them, or None.
      mesh: the devices that they are split over; None: one.
    """

    weights: InferenceWeights
    adapters: Adapters | None = None
    mesh: Mesh | None = dataclasses.field(default=None, metadata={"static": True})


class DecodeState(NamedTuple):
    """What stays on the device from call to call.

    Attributes:
      cache: keys and values of all slots' tokens.
      hidden: [B, D], the hidden state of each slot's newest token, from which the next one is drawn.
      seen: bool [B, V], tokens of each slot's prompt and answer, kept up where a slot has a repetition penalty.
    """

    cache: PagedCache
    hidden: jax.Array
    seen: jax.Array


class SlotRows(NamedTuple):
    """What the host says of each slot for one block.

    Attributes:
      positions: int32 [B], where each slot's next token will stand.
      done: bool [B], whether there is nothing to be done.
      table: int32 [B, N], pages by position.
      end_positions: int32 [B], the place at which a slot has its last allowed token, plus 1.
      ignore_end: bool [B], whether end tokens end nothing.
      logprobs: bool [B], whether log-probabilities are wanted.
      sampling: how each slot draws.
    """

    positions: jax.Array
    done: jax.Array
    table: jax.Array
    end_positions: jax.Array
    ignore_end: jax.Array
    logprobs: jax.Array
    sampling: SamplingRows


class Block(NamedTuple):
    """What a block of steps drew.

    Attributes:
      tokens: int32 [B, steps], NO_TOKEN where nothing was drawn.
      logprobs: float32 [B, steps], of those tokens.
      top_ids: int32 [B, steps, MAX_TOP_LOGPROBS], the most probable tokens there.
      top_logprobs: float32, likewise.
    """

    tokens: jax.Array
    logprobs: jax.Array
    top_ids: jax.Array
    top_logprobs: jax.Array


@functools.partial(
    jax.jit, static_argnames=("config", "columns"), donate_argnames=("cache", "hidden"),
)  # fmt: skip
def prefill_chunk(
    model: Model,
    config: ModelConfig,
    tokens: jax.Array,
    bounds: jax.Array,
    table: jax.Array,
    cache: PagedCache,
    hidden: jax.Array,
    *,
    columns: int | None,
) -> tuple[PagedCache, jax.Array]:
    """Returns the cache with a chunk of one slot's prompt written, and `hidden` with the state of its last token.

    Args:
      model: the model.
      config: its shape.
      tokens: int32 [1, C], the chunk, filled up with anything.
      bounds: int32 [4]: the slot, the chunk's first position, its tokens that count (at least 1), and how many tokens
        the slot will have in the end.
      table: int32 [1, N], the slot's pages.
      cache: donated.
      hidden: [B, D]; donated.
      columns: see `paged_attention`.
    """
    slot, start, count, row_length = bounds
    states, cache = _chunk_states(model, config, tokens, start, count, row_length, table, cache, columns)
    last = jax.lax.dynamic_slice_in_dim(states[0], count - 1, 1)
    return cache, jax.lax.dynamic_update_slice_in_dim(hidden, last, slot, axis=0)


@functools.partial(jax.jit, static_argnames=("config", "columns", "vocab_size"), donate_argnames=("cache",))
def score_chunk(
    model: Model,
    config: ModelConfig,
    tokens: jax.Array,
    targets: jax.Array,
    bounds: jax.Array,
    table: jax.Array,
    cache: PagedCache,
    *,
    columns: int | None,
    vocab_size: int,
) -> tuple[PagedCache, jax.Array]:
    """Returns the cache with a chunk written, and the log-probability of each token's given successor, float32 [C].

    Args:
      model: the model.
      config: its shape.
      tokens: int32 [1, C].
      targets: int32 [C], what follows each token.
      bounds: as for `prefill_chunk`; the slot is not looked at.
      table: int32 [1, N].
      cache: donated.
      columns: see `paged_attention`.
      vocab_size: tokens that there are; rows of the vocabulary behind them are padding.
    """
    _, start, count, row_length = bounds
    states, cache = _chunk_states(model, config, tokens, start, count, row_length, table, cache, columns)
    logprobs = jax.nn.log_softmax(_token_logits(model, states[0], vocab_size), axis=-1)
    return cache, jnp.take_along_axis(logprobs, targets[:, None], axis=-1)[:, 0]


@functools.partial(jax.jit, donate_argnames=("seen",))
def set_seen(seen: jax.Array, slot: jax.Array, row: jax.Array) -> jax.Array:
    """Returns `seen` [B, V] with a slot's row [V] replaced; `seen` is donated."""
    return jax.lax.dynamic_update_slice_in_dim(seen, row[None], slot, axis=0)


@functools.partial(jax.jit, static_argnames=("pages",))
def lengthen_cache(cache: PagedCache, *, pages: int) -> PagedCache:
    """Returns the cache with empty pages appended up to `pages`."""
    return jax.tree.map(
        lambda leaf: jnp.pad(leaf, ((0, pages - leaf.shape[0]), *[(0, 0)] * (leaf.ndim - 1))), cache
    )  # fmt: skip


@functools.partial(
    jax.jit, static_argnames=("config", "steps", "columns", "vocab_size"), donate_argnames=("state",)
)  # fmt: skip
def decode_block(
    model: Model,
    config: ModelConfig,
    state: DecodeState,
    rows: SlotRows,
    end_ids: jax.Array,
    *,
    steps: int,
    columns: int | None,
    vocab_size: int,
) -> tuple[DecodeState, Block]:
    """Returns the state after up to `steps` decode steps of all slots, and what was drawn.

    Args:
      model: the model.
      config: its shape.
      state: donated.
      rows: where each slot is. Its pages must have room for every token that the block may write.
      end_ids: int32 [E], tokens that end an answer.
      steps: most tokens a slot; fewer are made only if all slots are done.
      columns: see `paged_attention`.
      vocab_size: tokens that there are; rows of the vocabulary behind them are padding and never drawn.
    """
    batch = rows.positions.shape[0]
    places = (batch, steps)
    block = Block(
        jnp.full(places, NO_TOKEN, jnp.int32),
        jnp.zeros(places, jnp.float32),
        jnp.zeros((*places, MAX_TOP_LOGPROBS), jnp.int32),
        jnp.zeros((*places, MAX_TOP_LOGPROBS), jnp.float32),
    )

    def note(block: Block, step: jax.Array, logits: jax.Array, tokens: jax.Array) -> Block:
        top_logits, top_ids = jax.lax.top_k(logits, MAX_TOP_LOGPROBS)
        total = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
        return block._replace(
            logprobs=block.logprobs.at[:, step].set(chosen - total),
            top_ids=block.top_ids.at[:, step].set(top_ids),
            top_logprobs=block.top_logprobs.at[:, step].set(top_logits - total[:, None]),
        )

    def mark(seen: jax.Array, tokens: jax.Array) -> jax.Array:
        return seen.at[jnp.arange(batch), tokens].set(True)

    def unfinished(carry: tuple[Any, ...]) -> jax.Array:
        step, done = carry[:2]
        return (step < steps) & ~jnp.all(done)

    def one_step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, done, positions, hidden, cache, seen, block = carry
        logits = _token_logits(model, hidden, vocab_size)
        tokens = sample_tokens(logits, rows.sampling, positions, seen)
        seen = jax.lax.cond(jnp.any(rows.sampling.penalty != 1), mark, lambda seen, _: seen, seen, tokens)
        block = jax.lax.cond(
            jnp.any(rows.logprobs), note, lambda block, *_: block, block, step, logits, tokens
        )  # fmt: skip
        written = block.tokens.at[:, step].set(jnp.where(done, NO_TOKEN, tokens))
        block = block._replace(tokens=written)
        ended = jnp.any(tokens[:, None] == end_ids, axis=-1) & ~rows.ignore_end
        done = done | ended | (positions + 1 >= rows.end_positions)
        view = PageView(rows.table, positions[:, None], ~done[:, None])
        states, cache = paged_hidden_states(
            model.weights, config, tokens[:, None], view, cache,
            row_lengths=rows.end_positions, columns=columns, adapters=model.adapters, mesh=model.mesh,
        )  # fmt: skip
        hidden = jnp.where(done[:, None], hidden, states[:, 0])
        return step + 1, done, jnp.where(done, positions, positions + 1), hidden, cache, seen, block

    begin: tuple[Any, ...] = (jnp.int32(0), rows.done, rows.positions, state.hidden, state.cache, state.seen, block)
    *_, hidden, cache, seen, block = jax.lax.while_loop(unfinished, one_step, begin)
    return DecodeState(cache, hidden, seen), block


def _chunk_states(
    model: Model,
    config: ModelConfig,
    tokens: jax.Array,
    start: jax.Array,
    count: jax.Array,
    row_length: jax.Array,
    table: jax.Array,
    cache: PagedCache,
    columns: int | None,
) -> tuple[jax.Array, PagedCache]:
    places = jnp.arange(tokens.shape[1])[None]
    view = PageView(table, start + places, places < count)
    return paged_hidden_states(
        model.weights, config, tokens, view, cache,
        row_lengths=row_length[None], columns=columns, adapters=model.adapters, mesh=model.mesh,
    )  # fmt: skip


def _token_logits(model: Model, hidden: jax.Array, vocab_size: int) -> jax.Array:
    """Returns float32 logits [..., V], minus infinity for rows of the vocabulary that only pad it."""
    found = head_logits(model.weights, hidden)
    if found.shape[-1] == vocab_size:
        return found
    return jnp.where(jnp.arange(found.shape[-1]) < vocab_size, found, -jnp.inf)
