"""The paged key/value cache: pages of a fixed number of tokens, and attention of queries over their rows' pages.

Each layer has a pool of pages; a row's table names its pages in the order of its positions, so memory follows real
lengths and rows with a common prefix may name the same pages (vLLM's PagedAttention, arXiv 2309.06180). Which page is
whose is the host's affair (`sample/page_table.py`).

Attention goes over the table's columns one by one with a running softmax (arXiv 2205.14135), as many as the longest row
has: what is computed follows the real lengths too, and since a column that a row does not have adds exact zeros, no
row's result depends on how many there are. Loops of unknown length make accelerators wait for the host, so there a
given number of columns is taken at once instead.

In int8 each token's key and value have one scale a head, the largest magnitude over 127.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxwiz.model.config import ModelConfig
from jaxwiz.sharding.rules import sharding_of

_MASKED_SCORE = -1e30
_LARGEST_INT8 = 127


class Pool(NamedTuple):
    """One layer's keys or values.

    Attributes:
      values: [P, K, S, H], P pages of S tokens, in float32, bfloat16 or int8.
      scales: float32 [P, K, S], what int8 values are multiplied by; None for other dtypes.
    """

    values: jax.Array
    scales: jax.Array | None


class PagedCache(NamedTuple):
    """Keys (after rotation) and values of all layers, one pool each a layer."""

    k: tuple[Pool, ...]
    v: tuple[Pool, ...]


class PageView(NamedTuple):
    """Where the tokens of one call lie.

    Attributes:
      table: int32 [B, N], each row's pages by position; entries behind a row's last token are never looked at.
      positions: int32 [B, T], each token's place in its row.
      valid: bool [B, T], whether a token is to be written; what others compute means nothing.
    """

    table: jax.Array
    positions: jax.Array
    valid: jax.Array


def init_pages(config: ModelConfig, pages: int, page_tokens: int, dtype: jnp.dtype) -> PagedCache:
    """Returns empty pools of `pages` pages of `page_tokens` tokens for every layer."""
    shape = (pages, config.num_kv_heads, page_tokens, config.head_dim)
    scaled = jnp.dtype(dtype) == jnp.int8

    def pool() -> Pool:
        return Pool(jnp.zeros(shape, dtype), jnp.zeros(shape[:-1], jnp.float32) if scaled else None)

    layers = range(config.num_layers)
    return PagedCache(tuple(pool() for _ in layers), tuple(pool() for _ in layers))


def cache_shardings(cache: PagedCache, mesh: Mesh) -> PagedCache:
    """Returns how each array of a cache, or its shape, lies on the mesh: split by kv heads.

    Raises:
      UserError: kv heads that do not divide; see `sharding_of`.
    """
    axes = ("pages", "kv_heads", "page_tokens", "head_dim")

    def place(leaf: jax.Array) -> NamedSharding:
        return sharding_of(mesh, "cache", leaf.shape, axes[: leaf.ndim])

    return jax.tree.map(place, cache)


def token_bytes(config: ModelConfig, dtype: str) -> int:
    """Returns the bytes that one token takes in all layers."""
    a_head = config.head_dim * jnp.dtype(dtype).itemsize + (4 if dtype == "int8" else 0)
    return 2 * config.num_layers * config.num_kv_heads * a_head


def write_tokens(pool: Pool, new: jax.Array, view: PageView) -> Pool:
    """Returns the pool with `new` [B, T, K, H] written where `view` says."""
    count, page_tokens = pool.values.shape[0], pool.values.shape[2]
    pages = jnp.take_along_axis(view.table, view.positions // page_tokens, axis=1)
    pages = jnp.where(view.valid, pages, count)  # beyond the last page: dropped
    offsets = view.positions % page_tokens
    if pool.scales is None:
        return Pool(pool.values.at[pages, :, offsets].set(new.astype(pool.values.dtype), mode="drop"), None)
    scales = jnp.max(jnp.abs(new.astype(jnp.float32)), axis=-1) / _LARGEST_INT8
    rounded = jnp.round(new / jnp.where(scales > 0, scales, 1.0)[..., None]).astype(jnp.int8)
    return Pool(
        pool.values.at[pages, :, offsets].set(rounded, mode="drop"),
        pool.scales.at[pages, :, offsets].set(scales, mode="drop"),
    )


def paged_attention(q: jax.Array, k: Pool, v: Pool, view: PageView, columns: int | None) -> jax.Array:
    """Returns causal attention of queries over their rows' pages, [B, T, K, G, H] in q's dtype.

    Args:
      q: queries [B, T, K, G, H], rotated.
      k: keys, those of this call's tokens written.
      v: values, likewise.
      view: where the queries stand.
      columns: how many of the table's columns are attended to, all at once; None: one by one, as many as are needed.
    """
    B, T, K, G, H = q.shape
    page_tokens = k.values.shape[2]
    rows = q.transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)  # every query of a kv head is a row of one product
    places = jnp.tile(view.positions, (1, G))[:, None, :, None]  # [B, 1, G*T, 1]

    def scores(keys: jax.Array, scales: jax.Array | None, first: jax.Array | int) -> jax.Array:
        found = jnp.einsum("BKQH,BKSH->BKQS", rows, keys.astype(q.dtype), preferred_element_type=jnp.float32)
        found = found * H**-0.5 if scales is None else found * (scales * H**-0.5)[:, :, None]
        return jnp.where(first + jnp.arange(keys.shape[2]) <= places, found, _MASKED_SCORE)

    def weighted(weights: jax.Array, values: jax.Array, scales: jax.Array | None) -> jax.Array:
        weights = weights if scales is None else weights * scales[:, :, None]
        return jnp.einsum(
            "BKQS,BKSH->BKQH", weights.astype(q.dtype), values.astype(q.dtype), preferred_element_type=jnp.float32
        )

    if columns is None:
        longest = jnp.max(jnp.where(view.valid, view.positions, 0))

        def add_page(column: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            largest, total, mixed = carry
            page = jax.lax.dynamic_index_in_dim(view.table, column, axis=1, keepdims=False)
            (keys, key_scales), (values, value_scales) = _pages_at(k, page), _pages_at(v, page)
            found = scores(keys, key_scales, column * page_tokens)
            now_largest = jnp.maximum(largest, jnp.max(found, axis=-1, keepdims=True))
            weights, kept = jnp.exp(found - now_largest), jnp.exp(largest - now_largest)
            total = total * kept + jnp.sum(weights, axis=-1, keepdims=True)
            return now_largest, total, mixed * kept + weighted(weights, values, value_scales)

        begin = (jnp.full((B, K, G * T, 1), _MASKED_SCORE), jnp.zeros((B, K, G * T, 1)), jnp.zeros((B, K, G * T, H)))
        _, total, mixed = jax.lax.fori_loop(0, longest // page_tokens + 1, add_page, begin)
        out = mixed / total
    else:
        pages = view.table[:, :columns]
        (keys, key_scales), (values, value_scales) = _row_of(k, pages), _row_of(v, pages)
        weights = jax.nn.softmax(scores(keys, key_scales, 0), axis=-1)
        out = weighted(weights, values, value_scales)
    return out.astype(q.dtype).reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4)


def _pages_at(pool: Pool, pages: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    return pool.values[pages], None if pool.scales is None else pool.scales[pages]


def _row_of(pool: Pool, pages: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Returns the tokens of each row's pages [B, n] in one line: values [B, K, n * S, H] and scales [B, K, n * S]."""
    values = jnp.moveaxis(pool.values[pages], 1, 2)
    values = values.reshape(*values.shape[:2], -1, values.shape[-1])
    if pool.scales is None:
        return values, None
    scales = jnp.moveaxis(pool.scales[pages], 1, 2)
    return values, scales.reshape(*scales.shape[:2], -1)
