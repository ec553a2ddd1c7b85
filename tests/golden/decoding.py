"""The shortest correct use of the model's two forward passes; comparisons with other implementations run on it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxwiz.model.cache import KVCache, init_cache
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.llama import cached_hidden_states, hidden_states, logits

_ROUND = 32  # prompts are padded to a multiple, so that few programs are compiled


def logits_at(params: Any, config: LlamaConfig, tokens: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """Returns float32 logits [len(positions), V] of one row of tokens at some of its positions."""
    return np.asarray(_logits_at(params, config, jnp.array([tokens], jnp.int32), jnp.array(positions, jnp.int32)))


@functools.partial(jax.jit, static_argnums=1)
def _logits_at(params: Any, config: LlamaConfig, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    everywhere = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = hidden_states(params, config, tokens, everywhere)
    return logits(params, config, hidden[0, positions])


def greedy(params: Any, config: LlamaConfig, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """Returns the `new_tokens` likeliest next tokens of every prompt, one by one, all prompts in one batch."""
    lengths = np.array([len(prompt) for prompt in prompts])
    width = -(-int(lengths.max()) // _ROUND) * _ROUND
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    cache = init_cache(config, len(prompts), width + new_tokens)
    chosen, _ = _prefill_and_decode(params, config, jnp.array(tokens), jnp.array(lengths), cache, new_tokens)
    return np.asarray(chosen).T.tolist()


@functools.partial(jax.jit, static_argnums=(1, 5))
def _prefill_and_decode(
    params: Any, config: LlamaConfig, tokens: jax.Array, lengths: jax.Array, cache: KVCache, new_tokens: int
) -> tuple[jax.Array, KVCache]:
    everywhere = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, cache = cached_hidden_states(params, config, tokens, everywhere, cache)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    first = logits(params, config, last).argmax(-1).astype(jnp.int32)

    def step(carry: tuple[jax.Array, KVCache], offset: jax.Array) -> tuple[tuple[jax.Array, KVCache], jax.Array]:
        current, cache = carry
        positions = (lengths + offset)[:, None]
        hidden, cache = cached_hidden_states(params, config, current[:, None], positions, cache)
        return (logits(params, config, hidden[:, 0]).argmax(-1).astype(jnp.int32), cache), current

    (_, cache), chosen = jax.lax.scan(step, (first, cache), jnp.arange(new_tokens))
    return chosen, cache
