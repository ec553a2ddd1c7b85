"""Masked grouped-query attention in plain JAX, and the masks it takes.

Scores and softmax in float32, keys and values never repeated over their group. `attention` is the dense definition;
`reference_attention` applies it to packed rows, and `blocked_attention` gives the same in blocks of queries, so that
the half of the square that causality hides is never computed: 2 to 4 times as fast on a CPU, half the memory. Kernels
for accelerators are in `model/attention_kernels.py`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# (q [B,T,N,H], k [B,T,K,H], v [B,T,K,H], segment_ids int32 [B,T] or None) -> [B,T,N,H]: causal attention within
# segments; None means one segment a row. All implementations have this signature.
PackedAttention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]

# Large but finite: a row with every key masked then gives a mean of values instead of NaN.
_MASKED_SCORE = -1e30

_SMALLEST_BLOCK = 128  # queries; smaller blocks save no more and make more, smaller matrix products
_MOST_BLOCKS = 8  # each is unrolled into the program; 8 leave out 7/16 of the square, more of them add little


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
    scores = jnp.where(mask[:, None, None], _products(grouped, k) * head_dim**-0.5, _MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v).reshape(q.shape)


@jax.custom_vjp
def _products(q: jax.Array, k: jax.Array) -> jax.Array:
    """Returns q k^T in float32, [B, K, G, T, S]; the way back multiplies in the operands' dtype, as the way there."""
    return jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32)


def _products_forward(q: jax.Array, k: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _products(q, k), (q, k)


def _products_backward(operands: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, k = operands
    gradient = gradient.astype(q.dtype)  # left in float32 it would turn both products into float32 ones
    return jnp.einsum("BKGTS,BSKH->BTKGH", gradient, k), jnp.einsum("BKGTS,BTKGH->BSKH", gradient, q)


_products.defvjp(_products_forward, _products_backward)


def reference_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns attention over packed rows, [B, T, N, H]; see `PackedAttention`. Computes the whole square."""
    return attention(q, k, v, packed_mask(q.shape[1], segment_ids))


def blocked_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns what `reference_attention` does, block after block of queries, each with the keys up to its own end.

    The backward pass recomputes a block's scores from q and k instead of keeping them.
    """
    attend = jax.checkpoint(attention)
    outputs = []
    for start, end in query_blocks(q.shape[1]):
        mask = jnp.arange(end) <= jnp.arange(start, end)[None, :, None]
        if segment_ids is not None:
            mask &= segment_ids[:, start:end, None] == segment_ids[:, None, :end]
        outputs.append(attend(q[:, start:end], k[:, :end], v[:, :end], mask))
    return jnp.concatenate(outputs, axis=1)


def query_blocks(length: int) -> list[tuple[int, int]]:
    """Returns (start, end) of the blocks that `length` queries are computed in."""
    block = max(_SMALLEST_BLOCK, -(-length // _MOST_BLOCKS))
    return [(start, min(start + block, length)) for start in range(0, length, block)]


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
