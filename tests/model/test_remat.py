"""Under every policy, scanned or not, the same numbers; what a policy keeps is what its name says."""

import functools
from types import SimpleNamespace
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.files import UserError
from jaxwiz.model.attention_kernels import KERNELS
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.params import abstract_params, init_params
from jaxwiz.model.remat import POLICIES, require_offload_memory
from jaxwiz.train.config import ComputeConfig
from tests.model.test_attention_kernels import INTERPRETED

TINY = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)


def total(params: dict, tokens: jax.Array, config: LlamaConfig = TINY, **options) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = hidden_states(params, config, tokens, positions, jnp.ones_like(tokens), **options)
    return jnp.sum(jnp.sin(logits(params, config, hidden)))


@functools.cache
def value_and_gradient(remat: str, scan_layers: bool) -> tuple[jax.Array, dict]:
    params = init_params(TINY, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, TINY.vocab_size)
    run = functools.partial(total, remat=remat, scan_layers=scan_layers)
    return jax.jit(jax.value_and_grad(run))(params, tokens)


@pytest.mark.parametrize("scan_layers", [True, False])
@pytest.mark.parametrize("remat", POLICIES)
def test_a_policy_changes_no_number(remat: str, scan_layers: bool):
    expected, expected_gradient = value_and_gradient("none", True)
    value, gradient = value_and_gradient(remat, scan_layers)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), gradient, expected_gradient)


def test_the_config_offers_every_policy_and_every_kernel():
    hints = get_type_hints(ComputeConfig)
    assert set(get_args(hints["remat"])) == set(POLICIES)
    assert set(get_args(hints["attention"])) == {"auto", *KERNELS}


def test_a_policy_keeps_less_the_more_it_recomputes():
    deep = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=256, num_layers=48, num_heads=4, num_kv_heads=2, head_dim=16
    )
    tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)

    def temporary_bytes(remat: str) -> int:
        run = jax.jit(jax.grad(functools.partial(total, config=deep, remat=remat)))
        return run.lower(abstract_params(deep), tokens).compile().memory_analysis().temp_size_in_bytes

    policies = ("full", "save_attention", "save_feed_forward", "dots", "none")
    needs = [temporary_bytes(policy) for policy in policies]
    assert needs == sorted(needs) and len(set(needs)) == len(needs), dict(zip(policies, needs, strict=True))


def live_kernels(jaxpr, name: str) -> int:
    """Returns how many kernels of a name contribute to a program's results; the compiler drops the others."""
    live, found = {id(variable) for variable in jaxpr.outvars}, 0
    for equation in reversed(jaxpr.eqns):
        if not any(id(variable) in live for variable in equation.outvars):
            continue
        live |= {id(variable) for variable in equation.invars}
        if equation.primitive.name == "pallas_call":
            found += name in str(equation.params["name"])
        else:
            inner = (getattr(value, "jaxpr", value) for value in equation.params.values())
            found += sum(live_kernels(one, name) for one in inner if hasattr(one, "eqns"))
    return found


@pytest.mark.parametrize(("name", "forward"), [("splash", "splash_mha_fwd"), ("pallas", "flash_forward")])
def test_with_saved_attention_a_fused_kernel_runs_forward_once(name: str, forward: str):
    tokens = jax.ShapeDtypeStruct((1, 128), jnp.int32)

    def forward_runs(remat: str) -> int:
        run = jax.grad(functools.partial(total, attend=INTERPRETED[name], remat=remat))
        return live_kernels(jax.make_jaxpr(run)(abstract_params(TINY), tokens).jaxpr, forward)

    assert (forward_runs("full"), forward_runs("save_attention")) == (2, 1)


def test_offloaded_activations_go_to_the_host_and_come_back():
    run = jax.grad(functools.partial(total, remat="offload"))
    jaxpr = str(jax.make_jaxpr(run)(abstract_params(TINY), jax.ShapeDtypeStruct((1, 8), jnp.int32)))
    assert jaxpr.count("device_put") >= 4 and "Host" in jaxpr


def test_a_device_without_host_memory_refuses_to_offload():
    device = SimpleNamespace(device_kind="Abacus", addressable_memories=lambda: [SimpleNamespace(kind="device")])
    with pytest.raises(UserError, match=r"'offload': Abacus offers no pinned_host memory \(only device\)"):
        require_offload_memory("offload", device)
    require_offload_memory("full", device)
    require_offload_memory("offload", jax.devices()[0])
