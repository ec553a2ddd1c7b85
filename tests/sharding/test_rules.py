"""Sharding rules: what fits is placed, what does not is named."""

import dataclasses
import types

import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import param_specs
from jaxwiz.sharding.mesh import AXES
from jaxwiz.sharding.rules import RULES, batch_sharding, batch_shards, mesh_axes, param_shardings, sharding_of

MESH = AbstractMesh((2, 2, 4, 2, 2), AXES, axis_types=(AxisType.Auto,) * 5)
CONFIG = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)


def test_every_parameter_finds_its_place():
    specs = param_shardings(MESH, param_specs(CONFIG))
    assert specs["layers"]["attn"]["q"]["kernel"].spec == PartitionSpec(None, ("fsdp", "context"), ("tensor",), None)
    assert specs["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, ("tensor",), ("fsdp", "context"))
    assert specs["embed"]["tokens"].spec == PartitionSpec(("tensor",), ("fsdp", "context"))


def test_a_dimension_that_does_not_divide_is_named():
    specs = {"layers": {"attn": {"k": types.SimpleNamespace(shape=(30, 3), axes=("layers", "kv_heads"))}}}
    with pytest.raises(UserError, match=r"layers.attn.k: axis 'kv_heads' has size 3.*2 devices along tensor"):
        param_shardings(MESH, specs)


def test_a_single_kv_head_lies_whole_on_all_devices():
    assert mesh_axes("kv_heads", 1) == ()
    assert sharding_of(MESH, "cache", (3, 1), ("pages", "kv_heads")).spec == PartitionSpec(None, None)
    with pytest.raises(UserError, match="axis 'heads' has size 1"):  # of others a single one is a mistake
        sharding_of(MESH, "q", (1,), ("heads",))


def test_an_axis_without_a_rule_is_an_error():
    with pytest.raises(UserError, match="gate: no sharding rule for axis 'expert'"):
        sharding_of(MESH, "gate", (8,), ("expert",))


def test_one_mesh_axis_is_not_used_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RULES, "mlp", ("fsdp",))
    with pytest.raises(UserError, match="up: axes 'embed' and 'mlp' both lie along mesh axis 'fsdp'"):
        sharding_of(MESH, "up", (32, 48), ("embed", "mlp"))


def test_tokens_lie_along_rows_and_positions():
    assert batch_sharding(MESH).spec == PartitionSpec(("slice", "data", "fsdp"), ("context",))
    assert batch_shards(MESH.shape) == 16


def test_a_large_parameter_that_fsdp_does_not_split_is_an_error_with_the_largest_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RULES, "vocab", ())
    monkeypatch.setitem(RULES, "embed", ())
    monkeypatch.setitem(RULES, "mlp", ("fsdp",))
    message = r"mesh.fsdp = 4: \d\d.\d% of the parameters' bytes.*at most 2% may; the largest: layers.attn.*RULES"
    with pytest.raises(UserError, match=message):
        param_shardings(MESH, param_specs(CONFIG))
    without_fsdp = AbstractMesh((2, 2, 1, 2, 2), AXES, axis_types=(AxisType.Auto,) * 5)
    param_shardings(without_fsdp, param_specs(CONFIG))


def test_norm_scales_and_biases_of_a_real_model_are_few_enough_to_lie_whole():
    specs = param_specs(
        dataclasses.replace(
            CONFIG,
            hidden_size=512,
            intermediate_size=1024,
            num_heads=8,
            head_dim=64,
            attention_bias=True,
            mlp_bias=True,
        )
    )
    assert param_shardings(MESH, specs)["norm"]["scale"].spec == PartitionSpec(None)
