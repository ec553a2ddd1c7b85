"""Masks as literal matrices, and attention against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxwiz.model.attention import attention, packed_mask


def test_packed_mask():
    mask = packed_mask(5, jnp.array([[1, 1, 2, 2, 0]]))
    np.testing.assert_array_equal(
        mask[0].astype(int),
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1],
        ],
    )


def test_attention_equals_a_loop_over_heads():
    T, N, K, H = 6, 4, 2, 8
    q, k, v = (
        jax.random.normal(key, (2, T, heads, H))
        for key, heads in zip(jax.random.split(jax.random.key(0), 3), (N, K, K), strict=True)
    )
    mask = packed_mask(T, jnp.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0]]))
    out = attention(q, k, v, mask)
    for row in range(2):
        for head in range(N):
            scores = np.asarray(q[row, :, head] @ k[row, :, head // 2].T / np.sqrt(H))
            scores = np.where(mask[row], scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(out[row, :, head], weights @ v[row, :, head // 2], atol=1e-5)
