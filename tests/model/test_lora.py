"""Adapters: nothing at first, equal to their merge, and dropout that is repeatable and right on average."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding import cached_pass, empty_cache

from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.decoder import hidden_states
from jaxwiz.model.lora import Adapters
from jaxwiz.model.lora_config import ALL_TARGETS, LoraConfig
from jaxwiz.model.lora_params import abstract_lora, count_lora, init_lora, lora_specs, merge_lora
from jaxwiz.model.params import Params, init_params
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import param_shardings

# Every axis has its own size, so that a swapped pair cannot pass.
MODEL = LlamaConfig(
    vocab_size=50, hidden_size=20, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=4
)
LORA = LoraConfig(rank=5, alpha=10.0)
TOKENS = jax.random.randint(jax.random.key(7), (2, 9), 0, 50)
POSITIONS = jnp.broadcast_to(jnp.arange(9), (2, 9))


def base() -> Params:
    params = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * 6 if leaf.ndim > 2 else leaf, params)


def trained(lora: LoraConfig) -> Params:
    """Returns adapters as after training: no factor is zero, and each layer has its own."""
    params = init_lora(MODEL, lora, jax.random.key(1))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return jax.tree.unflatten(tree, [0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def hidden(params: Params, adapters: Adapters | None = None, **options: object) -> jax.Array:
    forward = jax.jit(functools.partial(hidden_states, config=MODEL, **options))  # type: ignore[arg-type]
    return forward(params, tokens=TOKENS, positions=POSITIONS, adapters=adapters)


def test_declarations_have_the_shapes_and_axes_of_the_kernels_halves() -> None:
    specs = lora_specs(MODEL, LoraConfig(rank=5, targets=("q", "o", "down")))
    assert {name: (spec["a"].shape, spec["b"].shape) for name, spec in specs.items()} == {
        "q": ((3, 20, 5), (3, 5, 6, 4)),
        "o": ((3, 6, 4, 5), (3, 5, 20)),
        "down": ((3, 28, 5), (3, 5, 20)),
    }
    assert specs["o"]["a"].axes == ("layers", "heads", "head_dim", "rank")
    assert specs["q"]["b"].axes == ("layers", "rank", "heads", "head_dim")
    shapes = jax.tree.map(lambda leaf: leaf.shape, abstract_lora(MODEL, LORA))
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, init_lora(MODEL, LORA, jax.random.key(0)))
    # (in + out) x rank x layers: q, k, v, o, then gate, up, down.
    assert count_lora(MODEL, LORA) == (44 + 28 + 28 + 44 + 3 * 48) * 5 * 3
    assert set(param_shardings(make_mesh(MeshConfig()), lora_specs(MODEL, LORA))) == set(ALL_TARGETS)


def test_fresh_adapters_change_nothing_at_all() -> None:
    fresh = init_lora(MODEL, LORA, jax.random.key(1))
    np.testing.assert_array_equal(hidden(base(), Adapters(fresh, LORA)), hidden(base()))
    a = fresh["down"]["a"]
    assert 0.9 < jnp.abs(a).max() * 28**0.5 <= 1  # uniform up to 1/sqrt(inputs), as peft begins
    assert not np.array_equal(a[0], a[1])


@pytest.mark.parametrize("lora", [LORA, LoraConfig(rank=2, targets=("v", "down"), rank_stabilized=True)], ids=str)
def test_unmerged_equals_merged(lora: LoraConfig) -> None:
    adapters = Adapters(trained(lora), lora)
    expected = hidden(merge_lora(base(), adapters.params, lora))
    assert jnp.abs(expected - hidden(base())).max() > 0.1
    np.testing.assert_allclose(hidden(base(), adapters), expected, atol=1e-5)
    np.testing.assert_allclose(hidden(base(), adapters, scan_layers=False), expected, atol=1e-5)
    cached, _ = cached_pass(base(), MODEL, TOKENS, POSITIONS, empty_cache(MODEL, 2, 9), adapters=adapters)
    np.testing.assert_allclose(cached, expected, atol=1e-5)


def test_the_merge_is_exact_in_float32() -> None:
    lora = dataclasses.replace(LORA, targets=("o",))
    params, adapters = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base()), trained(lora)
    merged = merge_lora(params, adapters, lora)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, adapters))
    product = np.einsum("LNHR,LRD->LNHD", wide[1]["o"]["a"], wide[1]["o"]["b"])
    expected = wide[0]["layers"]["attn"]["o"]["kernel"] + 2.0 * product
    np.testing.assert_allclose(merged["layers"]["attn"]["o"]["kernel"], expected, rtol=1e-6, atol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(merged["layers"]["attn"]["q"]["kernel"], params["layers"]["attn"]["q"]["kernel"])


def test_bfloat16_compute_keeps_float32_masters() -> None:
    adapters = trained(LORA)
    wide = hidden(merge_lora(base(), adapters, LORA))
    narrow = hidden(base(), Adapters(adapters, LORA), compute_dtype=jnp.dtype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    assert jnp.abs(narrow - wide).mean() < 0.05 * jnp.abs(wide).mean()


def test_dropout_is_repeatable_differs_by_layer_and_target_and_is_right_on_average() -> None:
    lora = LoraConfig(rank=5, alpha=5.0, dropout=0.25)
    ones = {target: jax.tree.map(jnp.ones_like, factors) for target, factors in trained(lora).items()}
    x = jnp.ones((4, 500, 20))
    layers = Adapters(ones, lora, jax.random.key(3)).by_layer(3)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(2))
    # Each of 20 inputs is kept as 4/3 or dropped; A and B of ones add them up over rank 5.
    kept = first.correction("gate", x)[:, :, 0] * 3 / 4 / 5
    np.testing.assert_allclose(kept, jnp.round(kept), atol=1e-4)
    assert 0.73 < kept.mean() / 20 < 0.77
    np.testing.assert_array_equal(first.correction("gate", x), first.correction("gate", x))
    assert not np.array_equal(first.correction("gate", x), first.correction("up", x))
    assert not np.array_equal(first.correction("gate", x), second.correction("gate", x))
    outside_training = Adapters(ones, lora).by_layer(3)
    np.testing.assert_allclose(
        jax.tree.map(lambda leaf: leaf[0], outside_training).correction("gate", x), 100.0, rtol=1e-6
    )


def test_a_target_named_twice_is_refused() -> None:
    with pytest.raises(UserError, match="targets = q, q: names one twice"):
        LoraConfig(targets=("q", "q"))
