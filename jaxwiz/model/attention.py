"""Masked grouped-query attention and the masks it takes.

The dense reference in plain JAX: scores and softmax in float32, keys and values never repeated over their group.
"""

import jax
import jax.numpy as jnp

# Large but finite: a row with every key masked then gives a mean of values instead of NaN.
_MASKED_SCORE = -1e30


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns softmax(q k^T / sqrt(H)) v under a mask, [B, T, N, H] in q's dtype.

    Args:
      q: queries [B, T, N, H].
      k: keys [B, S, K, H]; query head n uses kv head n // (N / K).
      v: values [B, S, K, H].
      mask: bool [B, T, S], or [1, T, S] for one mask for all rows; True where a query sees a key.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(batch, queries, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores * head_dim**-0.5, _MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(q.shape)


def packed_mask(length: int, segment_ids: jax.Array | None) -> jax.Array:
    """Returns the causal mask of packed rows, bool [B, T, T]: a token sees itself and what precedes it in its segment.

    Args:
      length: T.
      segment_ids: int32 [B, T], equal within an example; None: one segment a row, and B is 1.
    """
    causal = jnp.tril(jnp.ones((1, length, length), bool))
    if segment_ids is None:
        return causal
    return causal & (segment_ids[:, :, None] == segment_ids[:, None, :])


def slot_mask(positions: jax.Array, slots: int) -> jax.Array:
    """Returns the mask of queries over cache slots, bool [B, T, S]: a query at position p sees slots 0 to p.

    Args:
      positions: int32 [B, T].
      slots: S.
    """
    return jnp.arange(slots)[None, None, :] <= positions[:, :, None]
