"""The decoder agrees with itself: cached with full, packed with alone, both nnx modes; every config field is live."""

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import flax
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import cached_pass, empty_cache
from flax import nnx

from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.layers import RMSNorm
from jaxwiz.model.params import abstract_params, init_params, param_specs
from jaxwiz.model.rope_config import AnyScaling, DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

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
    step = jax.jit(lambda tokens, positions, cache: cached_pass(params, TINY, tokens, positions, cache))
    first, cache = step(tokens[:, :prompt], positions[:, :prompt], empty_cache(TINY, rows, 16))
    pieces = [first]
    for place in range(prompt, length):
        piece, cache = step(tokens[:, place : place + 1], positions[:, place : place + 1], cache)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)


def test_a_right_padded_prompt_decodes_as_if_it_were_alone(params: dict):
    tokens = random_tokens(1, 9)
    expected = hidden_states(params, TINY, tokens, places(1, 9))[:, -1]
    padded = jnp.concatenate([tokens[:, :5], jnp.full((1, 6), 7)], axis=1)  # five real tokens, six of padding
    _, cache = cached_pass(params, TINY, padded, places(1, 11), empty_cache(TINY, 1, 16))
    for place in range(5, 9):
        last, cache = cached_pass(params, TINY, tokens[:, place : place + 1], jnp.array([[place]]), cache)
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


def test_unrolled_layers_give_the_logits_of_scanned_ones(params: dict):
    tokens, positions = random_tokens(2, 8), places(2, 8)
    scanned, unrolled = (
        logits(params, TINY, hidden_states(params, TINY, tokens, positions, scan_layers=scan)) for scan in (True, False)
    )
    np.testing.assert_allclose(unrolled, scanned, atol=1e-6)


# Field -> (the model, the field's other value). What a field of rope does only shows in a model that scales its rope.
def _with(scaling: AnyScaling) -> LlamaConfig:
    return dataclasses.replace(TINY, max_positions=16, rope_scaling=scaling)


YARN = YarnScaling(factor=4.0, original_positions=64, beta_fast=2.0, beta_slow=0.5)
LLAMA_3 = Llama3Scaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_positions=16)
CHANGES: dict[str, tuple[LlamaConfig, ModelConfig]] = {
    "kind": (
        TINY,
        GPTBigCodeConfig(vocab_size=96, hidden_size=64, intermediate_size=48, num_layers=3, num_heads=4),
    ),
    **{
        name: (TINY, dataclasses.replace(TINY, **{name: value}))
        for name, value in {
            "vocab_size": 192,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_layers": 4,
            "num_heads": 8,
            "num_kv_heads": 4,
            "head_dim": 32,
            "rope_theta": 500.0,
            "norm_epsilon": 0.1,
            "tie_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_scaling": LinearScaling(factor=2.0),
        }.items()
    },
    "max_positions": (
        _with(DynamicScaling(factor=2.0)),
        dataclasses.replace(_with(DynamicScaling(factor=2.0)), max_positions=8),
    ),
    "linear.kind": (_with(LinearScaling(factor=2.0)), _with(DynamicScaling(factor=2.0))),
    "linear.factor": (_with(LinearScaling(factor=2.0)), _with(LinearScaling(factor=3.0))),
    "dynamic.kind": (_with(DynamicScaling(factor=2.0)), _with(LinearScaling(factor=2.0))),
    "dynamic.factor": (_with(DynamicScaling(factor=2.0)), _with(DynamicScaling(factor=4.0))),
    "yarn.kind": (_with(YARN), _with(LLAMA_3)),
    "llama3.kind": (_with(LLAMA_3), _with(YARN)),
    **{
        f"yarn.{name}": (_with(base), _with(dataclasses.replace(base, **{name: value})))
        for name, value, base in (
            ("factor", 8.0, YARN),
            ("original_positions", 32, YARN),
            ("beta_fast", 8.0, YARN),
            ("beta_slow", 0.1, YARN),
            ("attention_factor", 2.0, YARN),
            ("mscale", 2.0, dataclasses.replace(YARN, mscale=1.0, mscale_all_dim=1.0)),
            ("mscale_all_dim", 2.0, dataclasses.replace(YARN, mscale=1.0, mscale_all_dim=1.0)),
            ("truncate", False, YARN),
        )
    },
    **{
        f"llama3.{name}": (_with(LLAMA_3), _with(dataclasses.replace(LLAMA_3, **{name: value})))
        for name, value in {
            "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 8.0, "original_positions": 32
        }.items()
    },
}  # fmt: skip


def test_every_field_has_a_case():
    fields = [field.name for field in dataclasses.fields(LlamaConfig)]
    for kind in get_args(AnyScaling):
        fields += [f"{kind.kind}.{field.name}" for field in dataclasses.fields(kind)]
    assert sorted(CHANGES) == sorted(fields)


@pytest.mark.parametrize("field", CHANGES)
def test_every_config_field_is_live(field: str):
    before, after = CHANGES[field]
    if abstract_params(before) != abstract_params(after):
        return
    caches = [jax.eval_shape(lambda one=one: empty_cache(one, 1, 24)) for one in (before, after)]
    if caches[0] != caches[1]:
        return
    tokens, positions, weights = random_tokens(1, 24), places(1, 24), loud_params()
    outs = [logits(weights, one, hidden_states(weights, one, tokens, positions)) for one in (before, after)]
    assert np.abs(outs[0] - outs[1]).max() > 1e-4


@functools.cache
def loud_params() -> dict:
    """Weights large enough for attention to be far from uniform."""
    return jax.tree.map(lambda leaf: leaf * 5, init_params(TINY, jax.random.key(0)))


def operations(jaxpr: jax.extend.core.Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    """Yields every operation of a program, those of loops and inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda node: hasattr(node, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def test_bfloat16_compute_keeps_softmax_norms_and_rope_in_float32(params: dict):
    config = dataclasses.replace(TINY, max_positions=4, rope_scaling=DynamicScaling(factor=2.0))
    tokens, positions = random_tokens(1, 8), places(1, 8)

    def full(params: dict, positions: jax.Array) -> jax.Array:
        return logits(params, config, hidden_states(params, config, tokens, positions, compute_dtype=jnp.bfloat16))

    def cached(params: dict, positions: jax.Array) -> jax.Array:
        cache = empty_cache(config, 1, 8, jnp.bfloat16)
        return cached_pass(params, config, tokens, positions, cache, weights_dtype="bfloat16")[0]

    for program in (full, cached):
        seen = set()
        for operation in operations(jax.make_jaxpr(program)(params, positions).jaxpr):
            dtypes = [value.aval.dtype for value in operation.invars]
            name = operation.primitive.name
            if name in ("exp", "rsqrt", "cos", "sin", "pow", "reduce_max", "reduce_sum"):
                seen.add(name)
                assert jnp.bfloat16 not in dtypes, operation
            if name == "convert_element_type" and jnp.issubdtype(dtypes[0], jnp.integer):
                assert operation.params["new_dtype"] != jnp.bfloat16, operation  # a position
            if name == "dot_general" and dtypes[0] == jnp.bfloat16:
                seen.add(name)
        assert {"exp", "rsqrt", "cos", "sin", "dot_general"} <= seen


def test_bfloat16_norm_casts_where_transformers_does():
    """The normed value is rounded before it meets the scale, and once more after."""
    module = RMSNorm(dataclasses.replace(TINY, hidden_size=64), nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(2), (5, 64), jnp.bfloat16)
    scale = jax.random.uniform(jax.random.key(3), (64,), jnp.bfloat16, 0.5, 1.5)
    module.scale = nnx.Param(scale)
    wide = np.asarray(x, np.float32)
    normed = jnp.asarray(wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(module(x), normed * scale)
    assert module(x).dtype == jnp.bfloat16


def test_initial_values_match_the_declarations(params: dict):
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_params(TINY))
    assert param_specs(TINY)["layers"]["attn"]["q"]["kernel"].axes == ("layers", "embed", "heads", "head_dim")
    queries = params["layers"]["attn"]["q"]["kernel"]
    assert not np.array_equal(queries[0], queries[1])  # every layer has its own draw
    assert 0.015 < np.std(queries) < 0.025


def test_the_decoder_is_the_same_in_the_other_mode_of_nnx():
    """The default is graph mode. Parameters, packed rows, cached decode, and golden comparisons of both families."""
    here = Path(__file__).parent
    chosen = "initial_values or packed_segments or equals_the_full or mode_of_nnx_is_the or biased or starcoder"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", chosen]
    done = subprocess.run(
        [*command, str(here / "test_decoder.py"), str(here / "test_decoder_golden.py")],
        env={**os.environ, "NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_mode_of_nnx_is_the_one_asked_for():
    assert flax.config.nnx_graph_mode == (os.environ.get("NNX_GRAPH_MODE", "true") == "true")
