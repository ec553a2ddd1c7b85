"""The pass over pages equals the definition: narrow weights and caches nearly, other ways to the same exactly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import cached_pass, empty_cache

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.inference import Matrix, inference_weights, multiply, weight_shardings
from jaxwiz.model.pages import PageView, cache_shardings, init_pages, token_bytes, write_tokens
from jaxwiz.model.params import Params, init_params
from jaxwiz.sharding.mesh import AXES

# Every axis has its own size, so that a swapped pair cannot pass.
MODEL = LlamaConfig(
    vocab_size=50, hidden_size=20, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=4,
    attention_bias=True, mlp_bias=True,
)  # fmt: skip
TOKENS = jax.random.randint(jax.random.key(1), (2, 11), 0, MODEL.vocab_size)
POSITIONS = jnp.broadcast_to(jnp.arange(11), (2, 11))


def loud_params(config: LlamaConfig = MODEL) -> Params:
    params = init_params(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf * 2 + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


def found(weights_dtype: str = "float32", cache_dtype: str = "float32", columns: int | None = None) -> np.ndarray:
    """Hidden states [2, 11, D] of seven tokens at once and then the others one by one."""
    params, cache, pieces = loud_params(), empty_cache(MODEL, 2, 11, cache_dtype), []
    step = jax.jit(functools.partial(cached_pass, config=MODEL, weights_dtype=weights_dtype, columns=columns))
    for start, end in ((0, 7), (7, 8), (8, 9), (9, 10), (10, 11)):
        states, cache = step(
            params, tokens=TOKENS[:, start:end], positions=POSITIONS[:, start:end], cache=cache
        )  # fmt: skip
        pieces.append(np.asarray(states, np.float32))
    return np.concatenate(pieces, axis=1)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return np.asarray(hidden_states(loud_params(), MODEL, TOKENS, POSITIONS))


@pytest.mark.parametrize("columns", [None, 3])
def test_pages_one_by_one_and_all_at_once_give_the_definition(expected: np.ndarray, columns: int | None):
    np.testing.assert_allclose(found(columns=columns), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("weights_dtype", "cache_dtype", "most"),
    [("bfloat16", "bfloat16", 0.06), ("int8", "float32", 0.08), ("float32", "int8", 0.03)],
)
@pytest.mark.parametrize("columns", [None, 3])
def test_narrow_numbers_are_near_the_definition(
    expected: np.ndarray, weights_dtype: str, cache_dtype: str, most: float, columns: int | None
):
    error = found(weights_dtype, cache_dtype, columns) - expected
    assert 1e-4 < np.sqrt((error**2).mean() / (expected**2).mean()) < most


def test_an_int8_kernel_is_within_half_a_step_of_each_output_channel():
    kernel = jax.random.normal(jax.random.key(3), (40, 6)) * jnp.array([0.01, 1, 100, 1, 1, 0])
    params = loud_params(dataclasses.replace(MODEL, tie_embeddings=False))
    weights = inference_weights(params | {"head": {"kernel": jnp.tile(kernel, (1, 1))[:20]}}, MODEL, "int8")
    assert weights.head.kernel.dtype == jnp.int8
    restored = weights.head.kernel * weights.head.scale
    steps = np.abs(np.asarray(kernel[:20])).max(0) / 127
    assert (np.abs(restored - kernel[:20]) <= steps / 2 * 1.001).all()
    assert (restored[:, 5] == 0).all()


def test_a_single_row_is_multiplied_like_many():
    x = jax.random.normal(jax.random.key(4), (5, 1, 16))
    matrix = Matrix(jnp.round(jax.random.normal(jax.random.key(5), (16, 2, 3)) * 50).astype(jnp.int8), jnp.ones((2, 3)))
    together = multiply(x, matrix)
    np.testing.assert_array_equal(together[:1], multiply(x[:1], matrix))
    assert together.shape == (5, 1, 2, 3)


def test_a_tied_head_is_the_embedding():
    tied = dataclasses.replace(MODEL, tie_embeddings=True)
    params = loud_params(tied)
    weights = inference_weights(params, tied, "float32")
    assert weights.embed is None
    np.testing.assert_array_equal(weights.head.kernel, params["embed"]["tokens"].T)
    expected = logits(params, tied, hidden_states(params, tied, TOKENS, POSITIONS))
    states, _ = cached_pass(params, tied, TOKENS, POSITIONS, empty_cache(tied, 2, 11))
    np.testing.assert_allclose(states @ weights.head.kernel, expected, atol=1e-4)


def test_what_is_not_valid_is_not_written():
    pool = init_pages(MODEL, 3, 4, jnp.float32).k[0]
    new = jnp.ones((1, 3, MODEL.num_kv_heads, MODEL.head_dim))
    view = PageView(jnp.array([[2, 1]]), jnp.array([[3, 4, 5]]), jnp.array([[True, True, False]]))
    written = np.asarray(write_tokens(pool, new, view).values[:, 0, :, 0])
    np.testing.assert_array_equal(written, [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_token_bytes_are_those_of_the_pages(dtype: str):
    pages = init_pages(MODEL, 3, 4, jnp.dtype(dtype))
    assert token_bytes(MODEL, dtype) * 12 == sum(leaf.nbytes for leaf in jax.tree.leaves(pages))


def test_weights_and_cache_are_split_as_the_table_says():
    mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 2), AXES)
    weights = inference_weights(loud_params(), MODEL, "int8")
    places = weight_shardings(weights, mesh)
    assert places.layers[0].qkv.kernel.shard_shape((20, 2, 5, 4)) == (10, 1, 5, 4)
    assert places.layers[0].gate_up.kernel.shard_shape((20, 2, 28)) == (10, 2, 14)
    assert places.layers[0].down.scale.shard_shape((20,)) == (10,)
    assert places.head.kernel.shard_shape((20, 50)) == (10, 25)
    pools = init_pages(MODEL, 3, 4, jnp.int8)
    assert cache_shardings(pools, mesh).k[0].values.shard_shape((3, 2, 4, 4)) == (3, 1, 4, 4)
    assert cache_shardings(pools, mesh).v[0].scales.shard_shape((3, 2, 4)) == (3, 1, 4)
