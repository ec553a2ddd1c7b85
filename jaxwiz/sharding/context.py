"""Which positions of a row lie on which device where rows are split over the mesh axis `context`.

Under a causal mask late queries see many keys and early ones few: were rows cut into C neighbouring parts, the last
device would work nearly twice as long as the average one and all would wait for it. So a row is cut into 2 C chunks,
and device i holds chunk i and chunk 2 C - 1 - i: all have the same number of visible pairs.

    C = 2, chunks 0 1 2 3:    row order 0 1 2 3    context order 0 3 | 1 2
"""

import jax
import jax.numpy as jnp
import numpy as np


def to_context_order(x: jax.Array, devices: int) -> jax.Array:
    """Returns `x` [B, T, ...] with its positions in context order.

    Args:
      x: in row order, T a multiple of twice `devices`.
      devices: size of the mesh axis.
    """
    if devices == 1:
        return x
    early, late = jnp.split(_chunks(x, 2 * devices), 2, axis=1)
    return jnp.stack([early, late[:, ::-1]], axis=2).reshape(x.shape)


def to_row_order(x: jax.Array, devices: int) -> jax.Array:
    """Returns `x` [B, T, ...], in context order, with its positions in row order; undoes `to_context_order`."""
    if devices == 1:
        return x
    pairs = _chunks(x, 2 * devices).reshape(x.shape[0], devices, 2, -1, *x.shape[2:])
    return jnp.concatenate([pairs[:, :, 0], pairs[:, ::-1, 1]], axis=1).reshape(x.shape)


def context_places(length: int, devices: int) -> np.ndarray:
    """Returns the place in its row of each position of context order, int32 [T]."""
    chunks = np.arange(length, dtype=np.int32).reshape(2 * devices, -1)
    return np.stack([chunks[:devices], chunks[: devices - 1 : -1]], axis=1).reshape(-1)


def _chunks(x: jax.Array, number: int) -> jax.Array:
    return x.reshape(x.shape[0], number, -1, *x.shape[2:])
