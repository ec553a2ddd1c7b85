"""The decoder agrees with itself: cached with full, packed with alone, both nnx modes; every config field is live."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.cache import cache_bytes, init_cache
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.llama import cached_hidden_states, hidden_states, logits
from jaxwiz.model.params import abstract_params, count_params, init_params, param_specs

TINY = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)


@pytest.fixture(scope="module")
def params() -> dict:
    return init_params(TINY, jax.random.key(0))


def random_tokens(rows: int, length: int) -> jax.Array:
    return jax.random.randint(jax.random.key(1), (rows, length), 0, TINY.vocab_size)


def places(rows: int, length: int) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(length), (rows, length))


def test_cached_decode_equals_the_full_forward(params: dict):
    rows, length, prompt = 2, 12, 7
    tokens, positions = random_tokens(rows, length), places(rows, length)
    expected = hidden_states(params, TINY, tokens, positions)
    step = jax.jit(lambda tokens, positions, cache: cached_hidden_states(params, TINY, tokens, positions, cache))
    first, cache = step(tokens[:, :prompt], positions[:, :prompt], init_cache(TINY, rows, 16))
    pieces = [first]
    for place in range(prompt, length):
        piece, cache = step(tokens[:, place : place + 1], positions[:, place : place + 1], cache)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)


def test_a_right_padded_prompt_decodes_as_if_it_were_alone(params: dict):
    tokens = random_tokens(1, 9)
    expected = hidden_states(params, TINY, tokens, places(1, 9))[:, -1]
    padded = jnp.concatenate([tokens[:, :5], jnp.full((1, 6), 7)], axis=1)  # five real tokens, six of padding
    _, cache = cached_hidden_states(params, TINY, padded, places(1, 11), init_cache(TINY, 1, 16))
    for place in range(5, 9):
        last, cache = cached_hidden_states(params, TINY, tokens[:, place : place + 1], jnp.array([[place]]), cache)
    np.testing.assert_allclose(last[:, 0], expected, atol=1e-5)


def test_packed_segments_do_not_see_each_other(params: dict):
    first, second = random_tokens(2, 6)[0:1, :4], random_tokens(2, 6)[1:2]
    row = jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], axis=1)
    segment_ids = jnp.array([[1] * 4 + [2] * 6 + [0] * 2])
    positions = jnp.array([[*range(4), *range(6), 0, 0]])
    packed = hidden_states(params, TINY, row, positions, segment_ids)
    np.testing.assert_allclose(packed[:, :4], hidden_states(params, TINY, first, places(1, 4)), atol=1e-5)
    np.testing.assert_allclose(packed[:, 4:10], hidden_states(params, TINY, second, places(1, 6)), atol=1e-5)
    assert np.isfinite(packed).all()


def test_rematerialisation_changes_no_gradient(params: dict):
    tokens, positions = random_tokens(1, 8), places(1, 8)

    def total(params: dict, remat: bool) -> jax.Array:
        return logits(params, TINY, hidden_states(params, TINY, tokens, positions, remat=remat)).sum()

    gradients = [jax.grad(total)(params, remat) for remat in (False, True)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients)


# max_positions is a limit that stages check before running; it is no part of the computation.
LIVE_FIELDS = [field.name for field in dataclasses.fields(LlamaConfig) if field.name != "max_positions"]


@pytest.mark.parametrize("field", LIVE_FIELDS)
def test_every_config_field_is_live(field: str, params: dict):
    changes = {
        "rope_theta": 500.0,
        "norm_epsilon": 0.1,
        "tie_embeddings": True,
        "num_kv_heads": 4,
        "num_heads": 8,
    }
    changed = dataclasses.replace(TINY, **{field: changes.get(field, getattr(TINY, field) * 2)})
    if abstract_params(changed) != abstract_params(TINY):
        return
    tokens, positions = random_tokens(1, 8), places(1, 8)
    before, after = (logits(params, one, hidden_states(params, one, tokens, positions)) for one in (TINY, changed))
    assert np.abs(before - after).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("Llama 2 7B", (32_000, 4096, 11_008, 32, 32, 32, 128), 6_738_415_616),
        ("Llama 2 13B", (32_000, 5120, 13_824, 40, 40, 40, 128), 13_015_864_320),
        ("Code Llama 34B", (32_000, 8192, 22_016, 48, 64, 8, 128), 33_743_970_304),
        ("Llama 2 70B", (32_000, 8192, 28_672, 80, 64, 8, 128), 68_976_648_192),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, shape: tuple[int, ...], parameters: int):
    fields = [field.name for field in dataclasses.fields(LlamaConfig)]
    assert count_params(LlamaConfig(**dict(zip(fields, shape, strict=False)))) == parameters


def test_initial_values_match_the_declarations(params: dict):
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_params(TINY))
    assert param_specs(TINY)["layers"]["attn"]["q"].axes == ("layers", "embed", "heads", "head_dim")
    queries = params["layers"]["attn"]["q"]
    assert not np.array_equal(queries[0], queries[1])  # every layer has its own draw
    assert 0.015 < np.std(queries) < 0.025


def test_cache_bytes_are_those_of_the_cache():
    cache = init_cache(TINY, 2, 16, jnp.bfloat16)
    assert cache_bytes(TINY, 2, 16, 2) == cache.k.nbytes + cache.v.nbytes


def test_both_modes_of_nnx_give_the_same_logits_and_shapes():
    program = (
        "import jax, jax.numpy as jnp, hashlib\n"
        "from tests.model.test_llama import TINY, random_tokens, places\n"
        "from jaxwiz.model.llama import hidden_states, logits\n"
        "from jaxwiz.model.params import init_params, param_specs\n"
        "params = init_params(TINY, jax.random.key(0))\n"
        "out = logits(params, TINY, hidden_states(params, TINY, random_tokens(1, 8), places(1, 8)))\n"
        "print(hashlib.sha256(out.tobytes() + repr(param_specs(TINY)).encode()).hexdigest())\n"
    )
    digests = set()
    for mode in ("true", "false"):
        environment = {**os.environ, "NNX_GRAPH_MODE": mode, "NNX_GRAPH_UPDATES": mode}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1
