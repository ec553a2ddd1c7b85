"""Rotary position embeddings in Hugging Face's layout: dimension i turns with dimension i + H/2 (arXiv 2104.09864)."""

import jax
import jax.numpy as jnp

Rotation = tuple[jax.Array, jax.Array]


def rotation(positions: jax.Array, head_dim: int, theta: float) -> Rotation:
    """Returns (cos, sin) of each position's angles, both float32 [B, T, 1, H/2].

    Positions stay integers until they become float32: bfloat16 cannot tell 2,047 from 2,048.

    Args:
      positions: int32 [B, T].
      head_dim: H.
      theta: frequency i is theta ** (-2 i / H).
    """
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Returns `x` [B, T, N, H] turned by its positions' angles, computed in float32, in x's dtype."""
    cos, sin = by
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
