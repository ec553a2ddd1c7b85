"""What the declarations of a family's modules imply: abstract trees, logical axes, initial values and counts.

Outside model/, parameters are a nested dict of arrays. Layers are stacked: each leaf under "layers" has a leading L.

    {"embed": {"tokens": [V,D]},
     "layers": {"attn_norm": {"scale": [L,D]},
                "attn": {"q": {"kernel": [L,D,N,H], "bias": [L,N,H]}, "k", "v": {"kernel": [L,D,K,H], "bias": [L,K,H]},
                         "o": {"kernel": [L,N,H,D], "bias": [L,D]}},
                "mlp_norm": {"scale": [L,D]},
                "mlp": {"gate", "up": {"kernel": [L,D,F], "bias": [L,F]}, "down": {"kernel": [L,F,D], "bias": [L,D]}}},
     "norm": {"scale": [D]},
     "head": {"kernel": [D,V]}}    # absent where embeddings are tied, as biases are where the config has none

That is Llama's tree. GPTBigCode's (M = N + 2: query heads, the key's, the value's; P positions):

    {"embed": {"tokens": [V,D], "positions": [P,D]},
     "layers": {"attn_norm", "mlp_norm": {"scale", "bias": [L,D]},
                "attn": {"qkv": {"kernel": [L,D,M,H], "bias": [L,M,H]}, "o": {"kernel": [L,N,H,D], "bias": [L,D]}},
                "mlp": {"up": {"kernel": [L,D,F], "bias": [L,F]}, "down": {"kernel": [L,F,D], "bias": [L,D]}}},
     "norm": {"scale", "bias": [D]}}
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.family import ModuleClass, family_of
from jaxwiz.model.layers import Head

Params = dict[str, Any]  # nested dict of arrays


@dataclass(frozen=True)
class ParamSpec:
    """A parameter as declared.

    Attributes:
      shape: its full shape, the layer axis included.
      axes: the logical name of each dimension; `sharding/rules.py` maps names to mesh axes.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]


def param_specs(config: ModelConfig) -> dict[str, Any]:
    """Returns the nested dict of `ParamSpec` that a model of this config has."""
    specs: dict[str, Any] = {}
    for name, module_class in _parts(config).items():
        _, state = _abstract(module_class, config)
        part = nnx.to_pure_dict(state)
        for path, variable in nnx.to_flat_state(state):
            spec = ParamSpec(tuple(variable.shape), variable.get_metadata("axes"))
            if name == "layers":
                spec = ParamSpec((config.num_layers, *spec.shape), ("layers", *spec.axes))
            _set_leaf(part, path, spec)
        specs[name] = part
    return specs


def abstract_params(config: ModelConfig, dtype: jnp.dtype = jnp.float32) -> Params:
    """Returns the parameters as `jax.ShapeDtypeStruct`s: no memory is taken."""
    return map_specs(lambda spec: jax.ShapeDtypeStruct(spec.shape, dtype), param_specs(config))


def init_params(config: ModelConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Params:
    """Returns freshly initialised parameters; normal(0, 0.02) kernels and unit norms, as transformers does."""

    def create(module_class: ModuleClass, key: jax.Array) -> Params:
        return nnx.to_pure_dict(nnx.state(module_class(config, rngs=nnx.Rngs(params=key))))

    parts = _parts(config)
    params: Params = {}
    for (name, module_class), part_key in zip(parts.items(), jax.random.split(key, len(parts)), strict=True):
        if name == "layers":
            layer_keys = jax.random.split(part_key, config.num_layers)
            params[name] = jax.vmap(functools.partial(create, module_class))(layer_keys)
        else:
            params[name] = create(module_class, part_key)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def count_params(config: ModelConfig) -> int:
    """Returns the number of parameters; a tied embedding counts once."""
    sizes: list[int] = []
    map_specs(lambda spec: sizes.append(math.prod(spec.shape)), param_specs(config))
    return sum(sizes)


def param_bytes(config: ModelConfig, dtype: DTypeLike) -> int:
    """Returns the bytes that the parameters take in a dtype."""
    return count_params(config) * jnp.dtype(dtype).itemsize


def map_specs(function: Callable[[ParamSpec], Any], specs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `specs` with `function` applied to every `ParamSpec`."""
    return jax.tree.map(function, dict(specs), is_leaf=lambda node: isinstance(node, ParamSpec))


@functools.lru_cache(maxsize=32)
def graph_of(module_class: ModuleClass, config: ModelConfig) -> nnx.GraphDef:
    """Returns the module's structure without arrays; `nnx.merge(graph, dict of arrays)` makes it callable."""
    return _abstract(module_class, config)[0]


def _abstract(module_class: ModuleClass, config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: module_class(config, rngs=nnx.Rngs(0))))


def _parts(config: ModelConfig) -> dict[str, ModuleClass]:
    family = family_of(config)
    parts: dict[str, ModuleClass] = {"embed": family.embedding, "layers": family.layer, "norm": family.norm}
    return parts if config.tie_embeddings else {**parts, "head": Head}


def _set_leaf(tree: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value
