"""Attention over rows whose positions are split over the mesh axis `context`, for sequences too long for one device.

Each device keeps the queries of its own positions and gathers keys and values of the whole row; with grouped-query
attention these are the small ones. Their gradients meet in one reduce-scatter. Positions lie in context order
(`sharding/context.py`), so that causality gives every device the same work. Segments need nothing special: a query
sees the keys of its own segment, wherever on the mesh that began.

Measured ahead of time against a ring that passes keys and values from device to device (benchmarks/context.py, 16,384
tokens over 8 v5e chips, 32 heads over 8): gathering sends 113 MiB where the ring, whose gradients go round as well,
sends 176; and it can use kernels that own their backward pass, which the ring cannot: 2.2 ms at least with splash, 38.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.model.attention import PackedAttention, attention, query_blocks
from jaxwiz.sharding.context import context_places, to_row_order
from jaxwiz.sharding.rules import RULES, mesh_axes

# (q [B,t,N,H], k [B,T,K,H], v [B,T,K,H], mask bool [B,t,T]) -> [B,t,N,H]
MaskedAttention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class ContextKernel:
    """Attention of one device's queries over the whole row's keys.

    Attributes:
      operand: arrays that say which queries a device has, in whatever form `run` wants them.
      spec: how they lie on the mesh, a tree of `PartitionSpec`.
      run: (operand, q [B,t,N,H], k [B,T,K,H], v [B,T,K,H], q_segments [B,t], kv_segments [B,T]) -> [B,t,N,H], with t
        positions in context order and T in row order.
    """

    operand: Any
    spec: Any
    run: Callable[..., jax.Array]


def split_over_context(mesh: Mesh, kernel: ContextKernel) -> PackedAttention:
    """Returns attention over packed rows in context order, with each device on its own rows, heads and queries.

    Args:
      mesh: axes as `sharding/mesh.py` names them.
      kernel: what each device runs.
    """
    rows, (axis,), heads = (RULES[name] for name in ("batch", "length", "heads"))
    devices = mesh.shape[axis]

    def whole_row(x: jax.Array) -> jax.Array:
        return to_row_order(lax.all_gather(x, axis, axis=1, tiled=True), devices)

    def run(operand: Any, q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
        return kernel.run(operand, q, whole_row(k), whole_row(v), segment_ids, whole_row(segment_ids))

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
        if segment_ids is None:
            segment_ids = jnp.ones(q.shape[:2], jnp.int32)
        q_spec = PartitionSpec(rows, axis, heads)
        kv_spec = PartitionSpec(rows, axis, mesh_axes("kv_heads", k.shape[2]))
        # check_vma: kernels do not say over which axes their results vary.
        return jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(kernel.spec, q_spec, kv_spec, kv_spec, PartitionSpec(rows, axis)),
            out_specs=q_spec,
            check_vma=False,
        )(kernel.operand, q, k, v, segment_ids)

    return attend


def masked_over_context(attend: MaskedAttention, length: int, mesh: Mesh) -> ContextKernel:
    """Returns a `ContextKernel` that computes the whole square under a mask, whatever of it causality hides.

    Args:
      attend: attention under a mask.
      length: T.
      mesh: the devices.
    """

    def run(
        places: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, q_segments: jax.Array, kv_segments: jax.Array
    ) -> jax.Array:
        causal = jnp.arange(length)[None, None, :] <= places[None, :, None]
        return attend(q, k, v, causal & (q_segments[:, :, None] == kv_segments[:, None, :]))

    return ContextKernel(context_places(length, mesh.shape["context"]), PartitionSpec(RULES["length"]), run)


def blocked_masked_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns what `attention` does, block after block of queries, whose scores are recomputed on the way back."""
    attend = jax.checkpoint(attention)
    return jnp.concatenate(
        [attend(q[:, start:end], k, v, mask[:, start:end]) for start, end in query_blocks(q.shape[1])], axis=1
    )
