"""The proof that a chosen attention kernel computes attention, on packed rows of the run's own shape, before it starts.

Kernels fail silently: one ignores segment ids on some path, another is wrong for a head size, and the run merely learns
worse. So the kernel and the dense definition get the same random rows, with uneven segments and padding at the end, and
their outputs and gradients are held against each other, token by token.

The definition is computed in float32 at the highest precision. What a sound kernel may differ by is then its own
rounding: of operands and weights to the compute dtype (2^-9 of a value in bfloat16; float32 products are rounded to
2^-11 by tensor cores and 2^-9 by a TPU), averaged over a token's H numbers and at most a few times that in a gradient.
A wrong mask moves whole tokens by about their own size, 1.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.files import UserError
from jaxwiz.model.attention import PackedAttention, reference_attention
from jaxwiz.model.attention_kernels import AttentionShape, ChosenAttention
from jaxwiz.sharding.context import to_context_order, to_row_order
from jaxwiz.sharding.rules import RULES, batch_shards

# Largest error of a token; see above. Measured, 512 to 2,048 tokens: 2e-6 in float32 on a CPU, 1.2e-2 in bfloat16.
_ALLOWED_EXACT = 1e-4
_ALLOWED_ROUNDED = 5e-2


class AttentionMismatchError(UserError):
    """A kernel that does not compute attention; the message has the differences and the remedy."""


@dataclasses.dataclass(frozen=True)
class AttentionErrors:
    """How far a kernel is from the definition.

    Attributes:
      largest: the largest error of a token relative to its size, of "output" and of each gradient.
      allowed: what rounding may explain.
    """

    largest: dict[str, float]
    allowed: float

    def __str__(self) -> str:
        return (
            ", ".join(f"{name} {error:.1e}" for name, error in self.largest.items()) + f" (allowed {self.allowed:.0e})"
        )


def require_attention(chosen: ChosenAttention, shape: AttentionShape, mesh: Mesh) -> AttentionErrors:
    """Returns how far the kernel is from the definition on one packed row a device, forward and backward.

    Args:
      chosen: the kernel, as `choose_attention` split it over `mesh`.
      shape: the run's.
      mesh: the run's.

    Raises:
      AttentionMismatchError: an error is larger than rounding explains, or not finite.
    """
    found = (float(error) for error in jax.device_get(_compare(chosen.run, shape, mesh)))
    names = ("output", "gradient of q", "of k", "of v")
    errors = AttentionErrors(dict(zip(names, found, strict=True)), _allowed(shape, mesh))
    if not all(error <= errors.allowed for error in errors.largest.values()):  # a NaN is not below anything
        raise AttentionMismatchError(
            f"attention kernel {chosen.name!r} is wrong on packed rows of {shape.length} tokens, {shape.num_heads} "
            f"heads over {shape.num_kv_heads} of size {shape.head_dim}, {shape.dtype}: {errors}. Training with it "
            "would go wrong without a sign. Set compute.attention = 'xla', or use another version of JAX"
        )
    return errors


def _allowed(shape: AttentionShape, mesh: Mesh) -> float:
    exact = shape.dtype == "float32" and mesh.devices.flat[0].platform == "cpu"
    return _ALLOWED_EXACT if exact else _ALLOWED_ROUNDED


def _compare(run: PackedAttention, shape: AttentionShape, mesh: Mesh) -> tuple[jax.Array, ...]:
    """Returns the four errors, each float32 []."""
    rows, context = batch_shards(mesh.shape), mesh.shape["context"]
    segment_ids = packed_segments(rows, shape.length)

    def place(x: jax.Array, axis: str) -> jax.Array:
        sharding = NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["length"], RULES[axis], None))
        return lax.with_sharding_constraint(x.astype(shape.dtype), sharding)

    def run_as_trained(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
        q, k, v, ids = (to_context_order(x, context) for x in (q, k, v, jnp.asarray(segment_ids)))
        return to_row_order(run(q, k, v, ids), context)

    def results(run: PackedAttention, *inputs: jax.Array) -> tuple[jax.Array, ...]:
        *qkv, segments, out_gradient = inputs
        out, backward = jax.vjp(lambda q, k, v: run(q, k, v, segments), *qkv)
        return (out, *backward(out_gradient.astype(out.dtype)))

    def compare(key: jax.Array, segments: jax.Array) -> tuple[jax.Array, ...]:
        N, K, H = shape.num_heads, shape.num_kv_heads, shape.head_dim
        keys = jax.random.split(key, 4)
        q, k, v, out_gradient = (
            place(jax.random.normal(one, (rows, shape.length, heads, H)), axis)
            for one, heads, axis in zip(keys, (N, K, K, N), ("heads", "kv_heads", "kv_heads", "heads"), strict=True)
        )
        got = results(run_as_trained, q, k, v, segments, out_gradient)
        with jax.default_matmul_precision("highest"):
            wide = (x.astype(jnp.float32) for x in (q, k, v))
            expected = results(_reference_by_group, *wide, segments, out_gradient)
        return tuple(_token_error(one, other) for one, other in zip(got, expected, strict=True))

    return jax.jit(compare, out_shardings=NamedSharding(mesh, PartitionSpec()))(jax.random.key(0), segment_ids)


def packed_segments(rows: int, length: int) -> np.ndarray:
    """Returns segment ids int32 [rows, length]: up to 5 uneven examples, then padding; other lengths in each row."""
    places = np.arange(length)
    ids = np.zeros((rows, length), np.int32)
    for row in range(rows):
        cuts = np.sort(np.random.default_rng(row).choice(np.arange(1, length), min(5, length - 1), replace=False))
        ids[row] = 1 + np.searchsorted(cuts, places, side="right")
        ids[row, cuts[-1] :] = 0
    return ids


def _reference_by_group(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns `reference_attention`, one kv head after another, so that one square of scores exists at a time."""
    B, T, N, H = q.shape
    K = k.shape[2]
    grouped = jnp.moveaxis(q.reshape(B, T, K, N // K, H), 2, 0)

    def one_group(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return reference_attention(parts[0], parts[1][:, :, None], parts[2][:, :, None], segment_ids)

    out = lax.map(jax.checkpoint(one_group), (grouped, jnp.moveaxis(k, 2, 0), jnp.moveaxis(v, 2, 0)))
    return jnp.moveaxis(out, 0, 2).reshape(q.shape)


def _token_error(got: jax.Array, expected: jax.Array) -> jax.Array:
    """Returns the largest distance between tokens [..., H] relative to their size, float32 [].

    Tokens that nearly cancel out, as the first gradient of a segment does, are measured by the usual size of a token.
    """
    size = jnp.linalg.norm(expected, axis=-1)
    usual = jnp.sqrt(jnp.mean(size * size))
    return jnp.max(jnp.linalg.norm(got.astype(jnp.float32) - expected, axis=-1) / jnp.maximum(size, usual))
