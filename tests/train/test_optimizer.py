"""Schedules at their corners, decay that spares norms, clipping, and moments that lie as their parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from jaxwiz.model.params import init_params, param_specs
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.train.config import OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import abstract_state, state_shardings
from tests.train.tiny import MODEL, random_params


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325]),
        ("cosine", [0.5, 1.0, 1.0, 0.1 + 0.9 * (1 + 2**-0.5) / 2, 0.55, 0.1 + 0.9 * (1 - 2**-0.5) / 2]),
    ],
)
def test_the_rate_climbs_from_above_zero_and_falls_to_its_final_ratio(schedule: str, expected: list[float]) -> None:
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2, final_ratio=0.1)  # type: ignore[arg-type]
    rate = learning_rate_schedule(config, 6)
    np.testing.assert_allclose([rate(step) for step in range(6)], expected, rtol=1e-6)
    np.testing.assert_allclose(rate(6), 1.0 if schedule == "constant" else 0.1, rtol=1e-6)


def test_one_step_of_warmup_begins_at_the_peak() -> None:
    rate = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, schedule="constant", warmup_steps=1), 3)
    assert [float(rate(step)) for step in range(3)] == [1, 1, 1]


def test_weight_decay_spares_norm_scales_and_biases_and_nothing_else() -> None:
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5)
    biased = dataclasses.replace(MODEL, attention_bias=True, mlp_bias=True)
    optimizer = make_optimizer(config, 1, param_specs(biased))
    params = jax.tree.map(lambda leaf: leaf + 1, init_params(biased, jax.random.key(0)))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
    for path, (update, param) in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda *pair: pair, updates, params), is_leaf=lambda node: isinstance(node, tuple)
    ):
        name = jax.tree_util.keystr(path)
        share = 0.0 if "norm" in name or "bias" in name else -0.05
        np.testing.assert_allclose(update, share * param, atol=1e-7)


def test_clipping_makes_gradients_of_any_size_above_the_limit_equal() -> None:
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", epsilon=1.0, max_grad_norm=1.0)
    optimizer = make_optimizer(config, 1, param_specs(MODEL))
    params = random_params()
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    large, huge = (
        update(jax.tree.map(lambda leaf, factor=factor: leaf * factor, params), state, params)[0]
        for factor in (1e2, 1e4)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4), large, huge)


def test_moments_lie_on_the_mesh_as_their_parameters() -> None:
    optimizer = make_optimizer(OptimizerConfig(), 1, param_specs(MODEL))
    mesh = make_mesh(MeshConfig())
    shardings = state_shardings(MODEL, optimizer, mesh)
    shapes = abstract_state(MODEL, optimizer)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    embedding = shardings.params["embed"]["tokens"]
    like_embedding = [
        sharding.spec
        for shape, sharding in zip(jax.tree.leaves(shapes.opt_state), jax.tree.leaves(shardings.opt_state), strict=True)
        if shape.shape == (MODEL.vocab_size, MODEL.hidden_size)
    ]
    assert isinstance(embedding, NamedSharding)
    assert like_embedding == [embedding.spec] * 2  # first and second moment
