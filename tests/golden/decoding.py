"""The shortest correct use of the model's two forward passes; comparisons with other implementations run on it.

Greedy answers come from the engine, more prompts than slots at a time.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.inference import inference_weights, paged_hidden_states
from jaxwiz.model.lora import Adapters
from jaxwiz.model.pages import PagedCache, PageView, init_pages
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request

_PAGE_TOKENS = 4
_SLOTS = 3


def logits_at(params: Any, config: ModelConfig, tokens: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """Returns float32 logits [len(positions), V] of one row of tokens at some of its positions."""
    return np.asarray(_logits_at(params, config, jnp.array([tokens], jnp.int32), jnp.array(positions, jnp.int32)))


@functools.partial(jax.jit, static_argnums=1)
def _logits_at(params: Any, config: ModelConfig, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    everywhere = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = hidden_states(params, config, tokens, everywhere)
    return logits(params, config, hidden[0, positions])


def empty_cache(config: ModelConfig, rows: int, length: int, dtype: Any = jnp.float32) -> PagedCache:
    """Returns a cache with pages for `length` tokens of each row."""
    return init_pages(config, rows * -(-length // _PAGE_TOKENS), _PAGE_TOKENS, dtype)


def cached_pass(
    params: Any,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    cache: PagedCache,
    row_lengths: jax.Array | None = None,
    weights_dtype: str = "float32",
    adapters: Adapters | None = None,
    columns: int | None = None,
) -> tuple[jax.Array, PagedCache]:
    """Returns hidden states [B, T, D] of tokens that go on from what `cache` of `empty_cache` holds, and the cache."""
    rows = tokens.shape[0]
    table = jnp.arange(cache.k[0].values.shape[0]).reshape(rows, -1)
    lengths = jnp.full(rows, table.shape[1] * _PAGE_TOKENS) if row_lengths is None else row_lengths
    return paged_hidden_states(
        inference_weights(params, config, weights_dtype),
        config,
        tokens,
        PageView(table, positions, jnp.ones(tokens.shape, bool)),
        cache,
        row_lengths=lengths,
        columns=columns,
        adapters=adapters,
    )


class NoText:
    """Stands in for a tokenizer where there are no texts."""

    eos_id = -1

    def decode(self, ids: Sequence[int], continues: bool = False) -> str:
        return ""


def greedy(params: Any, config: ModelConfig, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """Returns the `new_tokens` likeliest next tokens of every prompt, one by one."""
    engine = Engine(params, config, NoText(), slots=_SLOTS)  # type: ignore[arg-type]
    return [list(answer.tokens) for answer in engine.generate([Request(prompt, new_tokens) for prompt in prompts])]
