"""Mesh sizes and sharding rules: what fits is placed, what does not is named."""

import types

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from jaxwiz.config import ConfigError
from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import param_specs
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import RULES, param_shardings, sharding_of

MESH = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
CONFIG = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16
)


def test_one_size_is_filled_in_from_the_devices():
    assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(16) == {"data": 2, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 3}, "8 devices do not divide by 3"),
        ({"fsdp": 4}, "needs 4 devices, but 8 are here"),
        ({"tensor": 0}, "must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        MeshConfig(**sizes).sizes(8)


def test_a_mesh_of_the_devices_here():
    assert make_mesh(MeshConfig()).size == jax.device_count()


def test_every_parameter_finds_its_place():
    specs = param_shardings(MESH, param_specs(CONFIG))
    assert specs["layers"]["attn"]["q"]["kernel"].spec == PartitionSpec(None, ("fsdp",), ("tensor",), None)
    assert specs["layers"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, ("tensor",), ("fsdp",))
    assert specs["embed"]["tokens"].spec == PartitionSpec(("tensor",), ("fsdp",))


def test_a_dimension_that_does_not_divide_is_named():
    specs = {"layers": {"attn": {"k": types.SimpleNamespace(shape=(30, 3), axes=("layers", "kv_heads"))}}}
    with pytest.raises(UserError, match=r"layers.attn.k: axis 'kv_heads' has size 3.*2 devices along tensor"):
        param_shardings(MESH, specs)


def test_an_axis_without_a_rule_is_an_error():
    with pytest.raises(UserError, match="gate: no sharding rule for axis 'expert'"):
        sharding_of(MESH, "gate", (8,), ("expert",))


def test_one_mesh_axis_is_not_used_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RULES, "mlp", ("fsdp",))
    with pytest.raises(UserError, match="up: axes 'embed' and 'mlp' both lie along mesh axis 'fsdp'"):
        sharding_of(MESH, "up", (32, 48), ("embed", "mlp"))
