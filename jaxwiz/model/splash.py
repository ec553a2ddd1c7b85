"""JAX's splash kernel for TPUs (`jax.experimental.pallas.ops.tpu.splash_attention`) on packed rows, whole or split.

The kernel skips blocks that the causal mask hides; which ones is worked out while the program is traced. Where a row's
positions are split over devices, that plan is made for all of them at once and each gets its part of it.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.model.attention_context import ContextKernel
from jaxwiz.model.remat import ATTENTION
from jaxwiz.sharding.context import context_places
from jaxwiz.sharding.rules import RULES

if TYPE_CHECKING:
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SplashAttentionKernel

LANES = 128  # blocks are multiples of it
_BLOCKS = (512, 256, 128)  # queries and keys of one visit; larger ones re-read less


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None, *, interpret: bool = False
) -> jax.Array:
    """Returns attention over packed rows; see `PackedAttention`.

    Any T: rows are filled up at their end, where causality hides what was added. k and v are not repeated.
    """
    T, N = q.shape[1:3]
    missing = -T % LANES
    kernel = _kernel(np.arange(T + missing, dtype=np.int32), N, devices=1, interpret=interpret)
    q, k, v = (jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (q, k, v))
    if segment_ids is not None:
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, missing)))
    return _run(kernel, q, k, v, segment_ids, segment_ids)[:, :T]


def splash_over_context(length: int, heads: int, mesh: Mesh, *, interpret: bool = False) -> ContextKernel:
    """Returns the kernel for rows whose positions are split over `mesh`; see `ContextKernel`.

    Args:
      length: T, a multiple of 128 for each device along the context.
      heads: query heads of one device.
      mesh: the devices.
      interpret: run the kernel's steps on any backend, slowly; for tests.
    """
    devices = mesh.shape["context"]
    kernel = _kernel(context_places(length, devices), heads, devices, interpret)
    spec = kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, RULES["length"])))
    return ContextKernel(kernel, spec, _run)


def _kernel(q_places: np.ndarray, heads: int, devices: int, interpret: bool) -> "SplashAttentionKernel":
    """Returns the causal kernel for queries at `q_places` of rows of as many keys, split over `devices`."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    length = q_places.size
    causal = splash_attention_mask.CausalMask((length, length))
    causal.q_sequence = q_places
    run = length if devices == 1 else length // (2 * devices)  # neighbouring queries
    block = next((size for size in _BLOCKS if run % size == 0), LANES)
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([causal] * heads),
        head_shards=1,
        q_seq_shards=devices,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )


def _run(
    kernel: Any,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    q = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)  # the kernel does not scale
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    if q_segments is None or kv_segments is None:
        out = jax.vmap(kernel)(q, k, v)
    else:
        out = jax.vmap(kernel)(q, k, v, splash_attention_kernel.SegmentIds(q_segments, kv_segments))
    return out.swapaxes(1, 2)
