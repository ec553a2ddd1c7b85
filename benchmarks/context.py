"""Prints what two ways of attending over split rows take, compiled for TPUs that are not here, and writes it as JSON.

    JAX_PLATFORMS=cpu python benchmarks/context.py          (with libtpu installed, see docs/plan.md)

Rows of 16,384 tokens are split over the 8 chips of v5e:2x4. *Gather*: each chip gathers keys and values of the whole
row (`model/attention_context.py`); *ring*: they go round from chip to chip, each adding up its queries' attention with
the part it holds, and the gradients of keys and values go round with them on the way back. Both take rows in context
order and know segments. Gather is shown with the splash kernel, which it allows, and with plain products, as the ring
has them; splash owns its backward pass and cannot be cut into steps of a ring. Bytes, memory and least time are those
of the compiled program, forward and backward, counted by `jaxwiz plan`'s reader.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from jaxwiz.model.attention import PackedAttention
from jaxwiz.model.attention_context import blocked_masked_attention, masked_over_context, split_over_context
from jaxwiz.model.splash import splash_over_context
from jaxwiz.plan.chips import GIB, Topology
from jaxwiz.plan.hlo import Program
from jaxwiz.plan.roofline import roofline
from jaxwiz.plan.traffic import measure
from jaxwiz.sharding.context import context_places
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

RESULTS = Path(__file__).parent / "results" / "context.json"
TOPOLOGY = "v5e:2x4"
_MASKED = -1e30
_BLOCK = 512  # queries whose scores exist at once


def ring_over_context(mesh: Mesh, length: int) -> PackedAttention:
    """Returns ring attention over rows in context order, with a backward pass of its own."""
    devices = mesh.shape["context"]
    onwards = [(device, (device + 1) % devices) for device in range(devices)]

    def pass_on(tree: Any) -> Any:
        return jax.tree.map(lambda x: lax.ppermute(x, "context", onwards), tree)

    def scores_of(q: jax.Array, k: jax.Array, q_at: tuple, k_at: tuple) -> jax.Array:
        """Returns masked scores [B, K, G, t, s] in float32; `at` is (segments [B, t], places [t])."""
        products = jnp.einsum("BTKGH,BSKH->BKGTS", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        seen = (q_at[0][:, :, None] == k_at[0][:, None, :]) & (q_at[1][:, None] >= k_at[1][None, :])
        return jnp.where(seen[:, None, None], products, _MASKED)

    def by_blocks(function: Any, *of_queries: jax.Array) -> Any:
        """Applies a function to blocks of queries, on axis 1 of each array, one after another."""
        split = [x.reshape(x.shape[0], -1, _BLOCK, *x.shape[2:]).swapaxes(0, 1) for x in of_queries]
        joined = lax.map(lambda parts: function(*parts), tuple(split))
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:]), joined)

    def forward(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array, places: jax.Array) -> tuple:
        B, t, K, G, H = q.shape
        rows = jnp.broadcast_to(places, ids.shape)
        out = jnp.zeros((B, t, K, G, H), jnp.float32)
        highest, total = jnp.full((B, t, K, G), _MASKED), jnp.zeros((B, t, K, G))
        held = (k, v, ids, places)
        for number in range(devices):

            def visit(q: jax.Array, ids: jax.Array, rows: jax.Array, out: Any, highest: Any, total: Any) -> tuple:
                k, v, k_ids, k_places = held  # noqa: B023 (called at once)
                scores = scores_of(q, k, (ids, rows[0]), (k_ids, k_places))
                new = jnp.maximum(highest, jnp.max(scores, axis=-1).transpose(0, 3, 1, 2))
                weights = jnp.exp(scores - new.transpose(0, 2, 3, 1)[..., None])
                shrink = jnp.exp(highest - new)
                more = jnp.einsum("BKGTS,BSKH->BTKGH", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
                return out * shrink[..., None] + more, new, total * shrink + weights.sum(-1).transpose(0, 3, 1, 2)

            out, highest, total = by_blocks(visit, q, ids, rows, out, highest, total)
            if number + 1 < devices:
                held = pass_on(held)
        return (out / total[..., None]).astype(q.dtype), highest + jnp.log(total)

    @jax.custom_vjp
    def attend(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array, places: jax.Array) -> jax.Array:
        return forward(q, k, v, ids, places)[0]

    def attend_forward(*inputs: jax.Array) -> tuple:
        out, log_total = forward(*inputs)
        return out, (*inputs, out, log_total)

    def attend_backward(residuals: tuple, gradient: jax.Array) -> tuple:
        q, k, v, ids, places, out, log_total = residuals
        rows = jnp.broadcast_to(places, ids.shape)
        mean = jnp.sum(out.astype(jnp.float32) * gradient, axis=-1)
        q_gradient = jnp.zeros(q.shape, jnp.float32)
        held = (k, v, ids, places, jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
        for _ in range(devices):
            k, v, k_ids, k_places, k_gradient, v_gradient = held

            def visit(carry: tuple, block: tuple) -> tuple:
                q, ids, rows, gradient, log_total, mean = block
                k, v, k_ids, k_places = held[:4]  # noqa: B023 (called at once)
                scores = scores_of(q, k, (ids, rows[0]), (k_ids, k_places))
                weights = jnp.exp(scores - log_total.transpose(0, 2, 3, 1)[..., None])
                pulls = jnp.einsum("BTKGH,BSKH->BKGTS", gradient, v, preferred_element_type=jnp.float32)
                pulls = weights * (pulls - mean.transpose(0, 2, 3, 1)[..., None]) * q.shape[-1] ** -0.5
                pulls, weights = pulls.astype(q.dtype), weights.astype(q.dtype)
                more = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
                return (
                    carry[0] + more("BKGTS,BTKGH->BSKH", pulls, q),
                    carry[1] + more("BKGTS,BTKGH->BSKH", weights, gradient),
                ), more("BKGTS,BSKH->BTKGH", pulls, k)

            blocks = tuple(
                x.reshape(x.shape[0], -1, _BLOCK, *x.shape[2:]).swapaxes(0, 1)
                for x in (q, ids, rows, gradient, log_total, mean)
            )
            (k_gradient, v_gradient), more = lax.scan(visit, (k_gradient, v_gradient), blocks)
            q_gradient += more.swapaxes(0, 1).reshape(q.shape)
            held = pass_on((k, v, k_ids, k_places, k_gradient, v_gradient))  # at last they are at home again
        return q_gradient.astype(q.dtype), held[4].astype(k.dtype), held[5].astype(v.dtype), None, None

    attend.defvjp(attend_forward, attend_backward)

    def local(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array, places: jax.Array) -> jax.Array:
        grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
        return attend(grouped, k, v, ids, places).reshape(q.shape)

    rows = PartitionSpec(None, "context")
    split = jax.shard_map(
        local, mesh=mesh, in_specs=(rows, rows, rows, rows, PartitionSpec("context")), out_specs=rows, check_vma=False
    )
    return lambda q, k, v, ids: split(q, k, v, ids, context_places(length, devices))


def attentions(mesh: Mesh, length: int, heads: int) -> dict[str, PackedAttention]:
    """Returns what is compared, by name."""
    plain = masked_over_context(blocked_masked_attention, length, mesh)
    return {
        "gather, splash": split_over_context(mesh, splash_over_context(length, heads, mesh)),
        "gather, plain": split_over_context(mesh, plain),
        "ring, plain": ring_over_context(mesh, length),
    }


def compile_for(run: PackedAttention, mesh: Mesh, length: int, heads: int, kv_heads: int) -> jax.stages.Compiled:
    """Returns the compiled forward and backward pass of one row in bfloat16."""
    sharding = NamedSharding(mesh, PartitionSpec(None, "context"))

    def both(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(lambda q, k, v: run(q, k, v, ids), q, k, v)
        return (out, *backward(gradient))

    def array(heads: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, length, heads, 128), jnp.bfloat16, sharding=sharding)

    ids = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=sharding)
    return jax.jit(both).lower(array(heads), array(kv_heads), array(kv_heads), ids, array(heads)).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=16_384)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    from jax.experimental import topologies

    topology = Topology.parse(TOPOLOGY)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    mesh = make_mesh(MeshConfig(fsdp=1, context=-1), devices)
    places = [(0, *device.coords[:2]) for device in mesh.devices.flat]
    lines = []
    for name, run in attentions(mesh, options.length, options.heads).items():
        compiled = compile_for(run, mesh, options.length, options.heads, options.kv_heads)
        traffic = measure(Program(compiled.as_text() or ""), topology, places)
        least = roofline(traffic, topology.chip, 0.0)
        analysis: Any = compiled.memory_analysis()
        lines.append(
            {
                "name": name,
                "ici_bytes": sum(traffic.ici_bytes.values()),
                "hbm_bytes": traffic.hbm_bytes,
                "temporary_bytes": analysis.temp_size_in_bytes,
                "seconds": {key: getattr(least, key) for key in ("compute", "hbm", "ici", "step", "serial")},
            }
        )
    shape = {key: getattr(options, key) for key in ("length", "heads", "kv_heads")}
    options.out.write_text(
        json.dumps({"topology": TOPOLOGY, "context": mesh.size, **shape, "lines": lines}, indent=1) + "\n"
    )
    table = Table("attention", "ICI MiB", "HBM GiB", "temporary GiB", "compute ms", "HBM ms", "ICI ms", "in turn ms")
    for line in lines:
        seconds = line["seconds"]
        table.add_row(
            line["name"],
            f"{line['ici_bytes'] / 2**20:,.0f}",
            f"{line['hbm_bytes'] / GIB:.2f}",
            f"{line['temporary_bytes'] / GIB:.2f}",
            *(f"{1e3 * seconds[key]:.2f}" for key in ("compute", "hbm", "ici", "serial")),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
