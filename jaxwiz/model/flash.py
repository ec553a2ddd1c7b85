"""Causal attention within segments as Pallas kernels for GPUs (FlashAttention-2, arXiv 2307.08691), with its gradient.

Scores never leave the chip: a program walks over blocks of keys with a running maximum and total, and the backward
pass rebuilds the weights from the logarithm of each query's total. Two savings are the packed row's: blocks beyond the
diagonal, and blocks before the segment of a block's first query, are not visited, so the cost of a row is that of its
examples alone. Query heads of a group read one and the same k and v.

Not done: dropout, windows, queries of another length than keys. Segments must be contiguous, as packing makes them.
The kernels are lowered by Pallas through Triton, which JAX 0.11 still does but announces to drop for Mosaic GPU.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jaxwiz.model.remat import ATTENTION, named

_BLOCK = 64  # queries, and keys, of one visit
_SMALLEST_HEAD = 16  # a matrix product of a GPU's tensor cores is at least this deep
_MASKED_SCORE = -1e30
_LOG2E = math.log2(math.e)


def flash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None, *, interpret: bool = False
) -> jax.Array:
    """Returns causal attention within segments, [B, T, N, H] in q's dtype.

    Args:
      q: queries [B, T, N, H].
      k: keys [B, T, K, H]; query head n uses kv head n // (N / K).
      v: values [B, T, K, H].
      segment_ids: int32 [B, T], each id in one run of neighbours; None: one segment a row.
      interpret: run the kernels' steps on any backend, slowly; for tests.
    """
    B, T, _, H = q.shape
    if segment_ids is None:
        segment_ids = jnp.ones((B, T), jnp.int32)
    # No query sees positions appended after it, and appended dimensions are zeros in every product.
    wide = max(_SMALLEST_HEAD, pl.next_power_of_2(H))
    q, k, v = (jnp.pad(x, ((0, 0), (0, -T % _BLOCK), (0, 0), (0, wide - H))) for x in (q, k, v))
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, -T % _BLOCK)))
    return _flash(interpret, H**-0.5, q, k, v, segment_ids)[:, :T, :, :H]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _flash(
    interpret: bool, scale: float, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array
) -> jax.Array:
    return _forward(interpret, scale, q, k, v, segment_ids)[0]


def _forward(
    interpret: bool, scale: float, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    B, T, N, H = q.shape
    group = N // k.shape[2]
    first, _ = _visited_blocks(segment_ids)
    out, log_total = pl.pallas_call(
        functools.partial(_forward_kernel, scale=scale),
        grid=(T // _BLOCK, N, B),
        in_specs=[
            pl.BlockSpec((None, 1), lambda i, n, b: (b, i)),
            pl.BlockSpec((None, T), lambda i, n, b: (b, 0)),
            pl.BlockSpec((None, _BLOCK, None, H), lambda i, n, b: (b, i, n, 0)),
            pl.BlockSpec((None, T, None, H), lambda i, n, b: (b, 0, n // group, 0)),
            pl.BlockSpec((None, T, None, H), lambda i, n, b: (b, 0, n // group, 0)),
        ],
        out_specs=[
            pl.BlockSpec((None, _BLOCK, None, H), lambda i, n, b: (b, i, n, 0)),
            pl.BlockSpec((None, None, _BLOCK), lambda i, n, b: (b, n, i)),
        ],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((B, N, T), jnp.float32)],
        compiler_params=_compiler_params(H),
        interpret=interpret,
        name="flash_forward",
    )(first, segment_ids, q, k, v)
    out, log_total = named(ATTENTION, out), named(ATTENTION, log_total)
    return out, (q, k, v, segment_ids, out, log_total)


def _forward_kernel(
    first_ref: Any,
    segments_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    out_ref: Any,
    log_total_ref: Any,
    scale: float,
) -> None:
    index = pl.program_id(0)
    q = q_ref[...]

    def visit(visited: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        out, highest, total = carry
        at = pl.ds(visited * _BLOCK, _BLOCK)
        scores = _dot(q, k_ref[at, :].T) * (scale * _LOG2E)
        scores = jnp.where(_seen(segments_ref, index, visited), scores, _MASKED_SCORE)
        new_highest = jnp.maximum(highest, jnp.max(scores, axis=1))
        shrink = jnp.exp2(highest - new_highest)
        weights = jnp.exp2(scores - new_highest[:, None])
        out = out * shrink[:, None] + _dot(weights.astype(q.dtype), v_ref[at, :])
        return out, new_highest, total * shrink + jnp.sum(weights, axis=1)

    empty = (
        jnp.zeros(q.shape, jnp.float32),
        jnp.full(_BLOCK, _MASKED_SCORE, jnp.float32),
        jnp.zeros(_BLOCK, jnp.float32),
    )
    # The diagonal block comes first: it holds a key for every query, so a total is never zero nor a maximum masked.
    out, highest, total = lax.fori_loop(first_ref[0], index, visit, visit(index, empty))
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    log_total_ref[...] = highest + jnp.log2(total)


def _backward(
    interpret: bool, scale: float, residuals: tuple[jax.Array, ...], out_gradient: jax.Array
) -> tuple[jax.Array | None, ...]:
    q, k, v, segment_ids, out, log_total = residuals
    B, T, N, H = q.shape
    K = k.shape[2]
    group = N // K
    first, last = _visited_blocks(segment_ids)
    # The softmax's part of the gradient, known for a query before its keys are visited: sum_s weight_s gradient_s.
    mean = jnp.einsum("BTNH,BTNH->BNT", out, out_gradient, preferred_element_type=jnp.float32)
    whole_row = pl.BlockSpec((None, T), lambda i, n, b: (b, 0))
    one_block = pl.BlockSpec((None, 1), lambda i, n, b: (b, i))
    options: dict[str, Any] = {"compiler_params": _compiler_params(H), "interpret": interpret}
    block = pl.BlockSpec((None, _BLOCK, None, H), lambda i, n, b: (b, i, n, 0))
    kv_of_head = pl.BlockSpec((None, T, None, H), lambda i, n, b: (b, 0, n // group, 0))
    block_scalars = pl.BlockSpec((None, None, _BLOCK), lambda i, n, b: (b, n, i))
    q_gradient = pl.pallas_call(
        functools.partial(_q_gradient_kernel, scale=scale),
        grid=(T // _BLOCK, N, B),
        in_specs=[one_block, whole_row, block, kv_of_head, kv_of_head, block, block_scalars, block_scalars],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        name="flash_q_gradient",
        **options,
    )(first, segment_ids, q, k, v, out_gradient, log_total, mean)
    heads_of_kv = pl.BlockSpec((None, T, group, H), lambda i, n, b: (b, 0, n, 0))
    scalars_of_kv = pl.BlockSpec((None, group, T), lambda i, n, b: (b, n, 0))
    k_gradient, v_gradient = pl.pallas_call(
        functools.partial(_kv_gradient_kernel, scale=scale, group=group),
        grid=(T // _BLOCK, K, B),
        in_specs=[one_block, whole_row, heads_of_kv, block, block, heads_of_kv, scalars_of_kv, scalars_of_kv],
        out_specs=[block, block],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        name="flash_kv_gradient",
        **options,
    )(last, segment_ids, q, k, v, out_gradient, log_total, mean)
    return q_gradient, k_gradient, v_gradient, None


_flash.defvjp(_forward, _backward)


def _q_gradient_kernel(
    first_ref: Any,
    segments_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    out_gradient_ref: Any,
    log_total_ref: Any,
    mean_ref: Any,
    q_gradient_ref: Any,
    scale: float,
) -> None:
    index = pl.program_id(0)
    q, out_gradient, log_total, mean = q_ref[...], out_gradient_ref[...], log_total_ref[...], mean_ref[...]

    def visit(visited: jax.Array, total: jax.Array) -> jax.Array:
        at = pl.ds(visited * _BLOCK, _BLOCK)
        k = k_ref[at, :]
        scores = _dot(q, k.T) * (scale * _LOG2E)
        weights = jnp.where(_seen(segments_ref, index, visited), jnp.exp2(scores - log_total[:, None]), 0.0)
        score_gradient = weights * (_dot(out_gradient, v_ref[at, :].T) - mean[:, None])
        return total + _dot(score_gradient.astype(q.dtype), k)

    total = lax.fori_loop(first_ref[0], index + 1, visit, jnp.zeros(q.shape, jnp.float32))
    q_gradient_ref[...] = (total * scale).astype(q_gradient_ref.dtype)


def _kv_gradient_kernel(
    last_ref: Any,
    segments_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    out_gradient_ref: Any,
    log_total_ref: Any,
    mean_ref: Any,
    k_gradient_ref: Any,
    v_gradient_ref: Any,
    scale: float,
    group: int,
) -> None:
    index = pl.program_id(0)
    k, v = k_ref[...], v_ref[...]

    def visit(head: int, visited: jax.Array, totals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        k_total, v_total = totals
        at = pl.ds(visited * _BLOCK, _BLOCK)
        q, out_gradient = q_ref[at, head, :], out_gradient_ref[at, head, :]
        scores = _dot(q, k.T) * (scale * _LOG2E)
        weights = jnp.exp2(scores - log_total_ref[head, at][:, None])
        weights = jnp.where(_seen(segments_ref, visited, index), weights, 0.0)
        score_gradient = weights * (_dot(out_gradient, v.T) - mean_ref[head, at][:, None])
        return (
            k_total + _dot(score_gradient.astype(q.dtype).T, q),
            v_total + _dot(weights.astype(q.dtype).T, out_gradient),
        )

    totals = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(k.shape, jnp.float32))
    for head in range(group):
        totals = lax.fori_loop(index, last_ref[0] + 1, functools.partial(visit, head), totals)
    k_gradient_ref[...] = (totals[0] * scale).astype(k_gradient_ref.dtype)
    v_gradient_ref[...] = totals[1].astype(v_gradient_ref.dtype)


def _visited_blocks(segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first key block that each query block sees, and the last query block that sees each key block.

    Both are int32 [B, T / block].
    """
    T = segment_ids.shape[1]
    places = jnp.arange(T, dtype=jnp.int32)
    border = segment_ids[:, 1:] != segment_ids[:, :-1]
    begins = jnp.pad(border, ((0, 0), (1, 0)), constant_values=True)
    ends = jnp.pad(border, ((0, 0), (0, 1)), constant_values=True)
    begin = lax.cummax(jnp.where(begins, places, 0), axis=1)
    end = lax.cummin(jnp.where(ends, places, T - 1), axis=1, reverse=True)
    return begin[:, ::_BLOCK] // _BLOCK, end[:, _BLOCK - 1 :: _BLOCK] // _BLOCK


def _seen(segments_ref: Any, q_block: jax.Array, k_block: jax.Array) -> jax.Array:
    """Returns bool [block, block]: whether a query sees a key."""
    q_segments = segments_ref[pl.ds(q_block * _BLOCK, _BLOCK)]
    k_segments = segments_ref[pl.ds(k_block * _BLOCK, _BLOCK)]
    places = jnp.arange(_BLOCK)
    not_later = (q_block * _BLOCK + places)[:, None] >= (k_block * _BLOCK + places)[None, :]
    return not_later & (q_segments[:, None] == k_segments[None, :])


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the matrix product in float32; float32 operands aren't rounded to the tensor cores' 10 bits."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _compiler_params(head_dim: int) -> triton.CompilerParams:
    return triton.CompilerParams(num_warps=4 if head_dim <= 64 else 8, num_stages=2)
