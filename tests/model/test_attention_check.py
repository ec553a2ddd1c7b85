"""The start-up check lets sound kernels pass in both dtypes, and stops every way of being wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.attention import attention, blocked_attention, packed_mask, reference_attention
from jaxwiz.model.attention_check import AttentionMismatchError, packed_segments, require_attention
from jaxwiz.model.attention_kernels import AttentionShape, ChosenAttention
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

SHAPE = AttentionShape(length=96, num_heads=4, num_kv_heads=2, head_dim=16, dtype="float32")


def check(run, dtype: str = "float32"):
    shape = AttentionShape(**{**vars(SHAPE), "dtype": dtype})
    return require_attention(ChosenAttention("tested", run), shape, make_mesh(MeshConfig()))


@pytest.mark.parametrize("run", [reference_attention, blocked_attention])
@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_sound_kernels_pass_with_room_to_spare(run, dtype: str, rounding: float):
    errors = check(run, dtype)
    assert max(errors.largest.values()) < rounding < errors.allowed


def ignores_segments(q, k, v, segments):
    return reference_attention(q, k, v, None)


def sees_one_token_ahead(q, k, v, segments):
    mask = packed_mask(q.shape[1], segments)
    return attention(q, k, v, mask | jnp.roll(mask, 1, axis=2))


def takes_the_wrong_kv_head(q, k, v, segments):
    return reference_attention(q, k[:, :, ::-1], v[:, :, ::-1], segments)


def forgets_the_last_block(q, k, v, segments):
    return reference_attention(q, k, v, segments).at[:, -8:].set(0)


@jax.custom_vjp
def goes_back_unscaled(q, k, v, segments):
    return reference_attention(q, k, v, segments)


def _forward(q, k, v, segments):
    return jax.vjp(reference_attention, q, k, v, segments)


def _backward(backward, gradient):
    q, k, v, _ = backward(gradient)
    return q, 4 * k, v, None


goes_back_unscaled.defvjp(_forward, _backward)


def is_not_finite(q, k, v, segments):
    return reference_attention(q, k, v, segments) * jnp.nan


@pytest.mark.parametrize(
    ("run", "dtype"),
    [
        (ignores_segments, "float32"),
        (ignores_segments, "bfloat16"),
        (sees_one_token_ahead, "bfloat16"),
        (takes_the_wrong_kv_head, "bfloat16"),
        (forgets_the_last_block, "bfloat16"),
        (goes_back_unscaled, "bfloat16"),
        (is_not_finite, "bfloat16"),
    ],
)
def test_a_wrong_kernel_is_stopped(run, dtype: str):
    with pytest.raises(AttentionMismatchError, match=r"kernel 'tested' is wrong on packed rows of 96 tokens.*'xla'"):
        check(run, dtype)


def test_rows_are_packed_unevenly_and_end_in_padding():
    segments = packed_segments(3, 50)
    assert [len(np.unique(row)) for row in segments] == [6, 6, 6]
    assert (segments[:, 0] == 1).all() and (segments[:, -1] == 0).all()
    assert len({row.tobytes() for row in segments}) == 3
