"""Schedules at their corners, decay that spares norms, clipping, and moments that lie as their parameters.

Each algorithm is held against its plain form: AdamW's against optax', Muon's against an orthogonalised matrix.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType

from jaxwiz.config import ConfigError, parse_config
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import init_params, param_specs
from jaxwiz.sharding.mesh import AXES
from jaxwiz.train.config import Adafactor, AdamW, Muon, OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import abstract_state, state_shardings, trained_specs
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


@pytest.mark.parametrize("algorithm", [AdamW(), Adafactor(), Muon()], ids=lambda one: one.kind)
def test_weight_decay_spares_norm_scales_and_biases_and_nothing_else(algorithm: AdamW | Adafactor | Muon) -> None:
    config = OptimizerConfig(algorithm=algorithm, learning_rate=0.1, schedule="constant", weight_decay=0.5)
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


def test_adamw_is_that_of_optax() -> None:
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.5, max_grad_norm=None)
    params = random_params()
    decayed = jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in str(path), params)
    optimizers = (make_optimizer(config, 1, param_specs(MODEL)), optax.adamw(0.1, weight_decay=0.5, mask=decayed))
    for one, other in zip(*(jax.tree.leaves(steps_of(optimizer, params)) for optimizer in optimizers), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def steps_of(optimizer: optax.GradientTransformation, params: dict) -> dict:
    """Parameters after three steps with gradients that follow from them."""
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(3):
        updates, state = update(jax.tree.map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_muon_orthogonalises_each_layers_matrices_and_leaves_the_rest_to_adamw() -> None:
    config = OptimizerConfig(algorithm=Muon(), learning_rate=1.0, schedule="constant", max_grad_norm=None)
    params = random_params()
    optimizer = make_optimizer(config, 1, param_specs(MODEL))
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    L, D, N, H = params["layers"]["attn"]["q"]["kernel"].shape
    matrices = {
        "q": (updates["layers"]["attn"]["q"]["kernel"].reshape(L, D, N * H), gradients["layers"]["attn"]["q"]),
        "o": (updates["layers"]["attn"]["o"]["kernel"].reshape(L, N * H, D), gradients["layers"]["attn"]["o"]),
        "down": (updates["layers"]["mlp"]["down"]["kernel"], gradients["layers"]["mlp"]["down"]),
    }
    for name, (found, gradient) in matrices.items():
        for layer in range(L):
            matrix = gradient["kernel"][layer].reshape(found.shape[1:])
            left, before, right = np.linalg.svd(matrix, full_matrices=False)
            after = np.diag(left.T @ -found[layer] @ right.T) / (0.2 * max(matrix.shape) ** 0.5)
            reached = after[before > 0.02 * np.linalg.norm(before)]  # five iterations lift what isn't nearly zero
            assert len(reached) > 0.8 * len(after) and reached.min() > 0.6 and reached.max() < 1.3, name
    for name in ("attn_norm", "mlp_norm"):
        np.testing.assert_allclose(jnp.abs(updates["layers"][name]["scale"]), 1, rtol=1e-3)  # AdamW's first step
    np.testing.assert_allclose(jnp.abs(updates["embed"]["tokens"]), 1, rtol=1e-3)


def test_adafactor_keeps_rows_and_columns_and_optax_agrees() -> None:
    wide = dataclasses.replace(MODEL, hidden_size=128, intermediate_size=256)
    config = OptimizerConfig(
        algorithm=Adafactor(momentum=0.9), learning_rate=0.1, schedule="constant", max_grad_norm=None
    )
    params = init_params(wide, jax.random.key(0))
    optimizer = make_optimizer(config, 1, param_specs(wide))
    state = abstract_state(wide, optimizer).opt_state
    kept = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert kept < 1.2 * sum(leaf.size for leaf in jax.tree.leaves(params))  # the momentum, and what is too narrow
    expected = steps_of(optax.adafactor(0.1, momentum=0.9), params)
    found = steps_of(optimizer, params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7), found, expected)


@pytest.mark.parametrize("algorithm", [AdamW(moment_dtype="bfloat16"), Muon(adamw=AdamW(moment_dtype="bfloat16"))])
def test_the_mean_of_gradients_may_be_bfloat16_and_nothing_else(algorithm: AdamW | Muon) -> None:
    optimizer = make_optimizer(OptimizerConfig(algorithm=algorithm), 1, param_specs(MODEL))
    state = abstract_state(MODEL, optimizer)
    for path, leaf in jax.tree.leaves_with_path(state.opt_state):
        if leaf.ndim > 1:
            assert (leaf.dtype == jnp.bfloat16) == (".mu" in jax.tree_util.keystr(path))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}


def test_an_algorithm_is_told_by_its_kind_and_has_no_fields_of_another() -> None:
    muon = parse_config({"algorithm": {"kind": "muon", "momentum": 0.9}}, OptimizerConfig, "test")
    assert muon == OptimizerConfig(algorithm=Muon(momentum=0.9))
    with pytest.raises(ConfigError, match=r"algorithm.beta1"):
        parse_config({"algorithm": {"kind": "adafactor", "beta1": 0.9}}, OptimizerConfig, "test")


def test_clipping_makes_gradients_of_any_size_above_the_limit_equal() -> None:
    config = OptimizerConfig(algorithm=AdamW(epsilon=1.0), learning_rate=0.1, schedule="constant", max_grad_norm=1.0)
    optimizer = make_optimizer(config, 1, param_specs(MODEL))
    params = random_params()
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    large, huge = (
        update(jax.tree.map(lambda leaf, factor=factor: leaf * factor, params), state, params)[0]
        for factor in (1e2, 1e4)
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4), large, huge)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=8)], ids=["all", "adapters"])
@pytest.mark.parametrize("algorithm", [AdamW(), Adafactor(momentum=0.9), Muon()], ids=lambda one: one.kind)
def test_moments_lie_on_the_mesh_as_their_parameters(
    algorithm: AdamW | Adafactor | Muon, lora: LoraConfig | None
) -> None:
    wide = dataclasses.replace(MODEL, hidden_size=256, intermediate_size=512, num_heads=8, num_kv_heads=4)
    mesh = AbstractMesh((1, 1, 4, 1, 2), AXES, axis_types=(AxisType.Auto,) * 5)
    optimizer = make_optimizer(OptimizerConfig(algorithm=algorithm), 1, trained_specs(wide, lora))
    shardings = state_shardings(wide, optimizer, mesh, lora)  # type: ignore[arg-type]
    shapes = abstract_state(wide, optimizer, lora)
    assert jax.tree.structure(shardings) == jax.tree.structure(shapes)
    specs = {jax.tree_util.keystr(path): leaf.spec for path, leaf in jax.tree.leaves_with_path(shardings.params)}
    sizes = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(shapes.params)}
    for (path, sharding), shape in zip(
        jax.tree.leaves_with_path(shardings.opt_state), jax.tree.leaves(shapes.opt_state), strict=True
    ):
        name = next((name for name in specs if jax.tree_util.keystr(path).endswith(name)), "")
        if shape.shape == sizes.get(name):
            assert sharding.spec == specs[name], name
        elif shape.size > 4:  # a row or column of Adafactor's: the parameter's, one axis less
            spec, axes = specs[name], range(len(specs[name]))
            assert any(tuple(sharding.spec) == (*spec[:axis], *spec[axis + 1 :]) for axis in axes), name
