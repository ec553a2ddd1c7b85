"""The key/value cache: two arrays, scanned with the layers, never module state.

A token at position p of row b occupies slot p, and a query at position p sees slots 0 to p. So a right-padded prompt
needs no lengths: what padding wrote lies beyond every later query until real tokens overwrite it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxwiz.model.config import LlamaConfig


class KVCache(NamedTuple):
    """Keys and values of all layers.

    Attributes:
      k: keys after rotation [L, B, S, K, H].
      v: values [L, B, S, K, H].
    """

    k: jax.Array
    v: jax.Array


def init_cache(config: LlamaConfig, batch: int, slots: int, dtype: jnp.dtype = jnp.float32) -> KVCache:
    """Returns an empty cache of `slots` positions for `batch` rows."""
    shape = (config.num_layers, batch, slots, config.num_kv_heads, config.head_dim)
    return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def cache_bytes(config: LlamaConfig, batch: int, slots: int, dtype_bytes: int) -> int:
    """Returns the bytes that `init_cache` takes."""
    return 2 * config.num_layers * batch * slots * config.num_kv_heads * config.head_dim * dtype_bytes
