"""The two device programs of generation: prefill of prompts, and decoding in blocks of several steps.

Prompts are right-padded and go through the model in chunks of one fixed width, so a prompt of any length runs the same
program. Decoding runs up to `steps` tokens a call in a `while_loop` that ends early once every row is done; the host
looks only between blocks. A row that is done keeps its token and its place, so that it writes nothing new. The cache
is donated: it is updated in place. Only the last real position of each row meets the output head.

Programs are cached by jit: they depend on batch size, cache length, chunk width, steps and the model's shape alone.
Sampling settings, end tokens and lengths are data. What a batch holds is `sample/engine.py`'s affair.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxwiz.model.cache import KVCache
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.llama import cached_hidden_states, logits
from jaxwiz.model.params import Params
from jaxwiz.sample.sampling import SamplingRows, sample_tokens

NO_TOKEN = -1  # in a block's output: the row was done before this step


class RowLimits(NamedTuple):
    """What ends each row, and how it draws.

    Attributes:
      sampling: how each row draws.
      end_ids: int32 [E], tokens that end any row.
      end_positions: int32 [B], the place at which a row has its last allowed token, plus 1.
    """

    sampling: SamplingRows
    end_ids: jax.Array
    end_positions: jax.Array


class DecodeState(NamedTuple):
    """A batch in the middle of generation.

    Attributes:
      cache: keys and values of all tokens before `positions`.
      tokens: int32 [B], each row's newest token, not yet in the cache.
      positions: int32 [B], where it stands.
      done: bool [B], whether it was the row's last.
    """

    cache: KVCache
    tokens: jax.Array
    positions: jax.Array
    done: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "compute_dtype"), donate_argnames=("hidden", "cache"))
def prefill_chunk(
    params: Params,
    config: LlamaConfig,
    tokens: jax.Array,
    start: jax.Array,
    last: jax.Array,
    hidden: jax.Array,
    cache: KVCache,
    row_lengths: jax.Array,
    *,
    compute_dtype: jnp.dtype,
) -> tuple[jax.Array, KVCache]:
    """Returns `hidden` with the rows whose prompt ends in this chunk filled in, and the cache with the chunk written.

    Args:
      params: the model's parameters.
      config: the model's shape.
      tokens: int32 [B, C], positions start to start + C - 1 of the padded prompts.
      start: int32 scalar, the chunk's first position.
      last: int32 [B], the position of each prompt's last token.
      hidden: [B, D], the hidden states at `last` found so far; donated.
      cache: S >= start + C slots; donated.
      row_lengths: int32 [B], tokens of each row with the longest answer; see `cached_hidden_states`.
      compute_dtype: dtype of matmuls and activations.
    """
    batch, width = tokens.shape
    positions = jnp.broadcast_to(start + jnp.arange(width), (batch, width))
    states, cache = cached_hidden_states(
        params, config, tokens, positions, cache, row_lengths=row_lengths, compute_dtype=compute_dtype
    )
    place = last - start
    found = states[jnp.arange(batch), jnp.clip(place, 0, width - 1)]
    ends_here = (place >= 0) & (place < width)
    return jnp.where(ends_here[:, None], found, hidden), cache


@functools.partial(jax.jit, static_argnames=("config",), donate_argnames=("cache",))
def begin_decode(
    params: Params, config: LlamaConfig, hidden: jax.Array, lengths: jax.Array, cache: KVCache, limits: RowLimits
) -> DecodeState:
    """Returns the state after each row's first new token has been drawn.

    Args:
      params: the model's parameters.
      config: the model's shape.
      hidden: [B, D], the hidden states of the prompts' last tokens.
      lengths: int32 [B], tokens of each prompt: where the first new token stands.
      cache: the prompts' keys and values; donated.
      limits: what ends each row, and how it draws.
    """
    tokens = sample_tokens(logits(params, config, hidden), limits.sampling, lengths)
    return DecodeState(cache, tokens, lengths, _is_last(tokens, lengths, limits))


@functools.partial(jax.jit, static_argnames=("config", "steps", "compute_dtype"), donate_argnames=("state",))
def decode_block(
    params: Params,
    config: LlamaConfig,
    state: DecodeState,
    limits: RowLimits,
    *,
    steps: int,
    compute_dtype: jnp.dtype,
) -> tuple[DecodeState, jax.Array]:
    """Returns the state after up to `steps` more tokens a row, and those tokens.

    Args:
      params: the model's parameters.
      config: the model's shape.
      state: where each row is; donated. Its cache must have a slot for every token that the block may write.
      limits: what ends each row, and how it draws.
      steps: most tokens a row; fewer are made only if all rows are done.
      compute_dtype: dtype of matmuls and activations.

    Returns:
      The new state, and the tokens int32 [B, steps], NO_TOKEN where a row was done before that step.
    """
    written = jnp.full((state.tokens.shape[0], steps), NO_TOKEN, jnp.int32)

    def unfinished(carry: tuple[jax.Array, DecodeState, jax.Array]) -> jax.Array:
        step, state, _ = carry
        return (step < steps) & ~jnp.all(state.done)

    def one_step(carry: tuple[jax.Array, DecodeState, jax.Array]) -> tuple[jax.Array, DecodeState, jax.Array]:
        step, state, written = carry
        hidden, cache = cached_hidden_states(
            params, config, state.tokens[:, None], state.positions[:, None], state.cache,
            row_lengths=limits.end_positions, compute_dtype=compute_dtype,
        )  # fmt: skip
        positions = jnp.where(state.done, state.positions, state.positions + 1)
        drawn = sample_tokens(logits(params, config, hidden[:, 0]), limits.sampling, positions)
        tokens = jnp.where(state.done, state.tokens, drawn)
        written = written.at[:, step].set(jnp.where(state.done, NO_TOKEN, drawn))
        done = state.done | _is_last(tokens, positions, limits)
        return step + 1, DecodeState(cache, tokens, positions, done), written

    _, state, written = jax.lax.while_loop(unfinished, one_step, (jnp.int32(0), state, written))
    return state, written


@functools.partial(jax.jit, static_argnames=("slots",))
def lengthen_cache(cache: KVCache, *, slots: int) -> KVCache:
    """Returns the cache with empty slots appended up to `slots`."""
    return jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, 0), (0, slots - leaf.shape[2]), (0, 0), (0, 0))), cache)


def _is_last(tokens: jax.Array, positions: jax.Array, limits: RowLimits) -> jax.Array:
    ended = jnp.any(tokens[:, None] == limits.end_ids, axis=-1)
    return ended | (positions + 1 >= limits.end_positions)
