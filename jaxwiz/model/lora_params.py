"""What adapters are made of: declarations, initial values, and the merge into the kernels that they stand beside."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.lora import LAYOUTS
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import Params, ParamSpec, map_specs, param_specs


def lora_specs(model: ModelConfig, lora: LoraConfig) -> dict[str, Any]:
    """Returns {target: {"a": ParamSpec, "b": ParamSpec}}, stacked over layers, derived from the kernels' declarations.

    A is [L, *in, R], B is [L, R, *out]: each axis of the kernel keeps its logical name, so it lies on the mesh as the
    kernel does; the rank is never split.

    Raises:
      UserError: the model is of a family that takes no adapters.
    """
    if not isinstance(model, LlamaConfig):
        raise UserError(f"lora: not for models of kind {model.kind!r}, only for 'llama'; train all parameters instead")
    layers = param_specs(model)["layers"]
    specs: dict[str, Any] = {}
    for target in lora.targets:
        kernel = _block(layers, target)["kernel"]
        split = 1 + len(LAYOUTS[target][0])
        into, out = kernel.shape[1:split], kernel.shape[split:]
        into_axes, out_axes = kernel.axes[1:split], kernel.axes[split:]
        specs[target] = {
            "a": ParamSpec((model.num_layers, *into, lora.rank), ("layers", *into_axes, "rank")),
            "b": ParamSpec((model.num_layers, lora.rank, *out), ("layers", "rank", *out_axes)),
        }
    return specs


def abstract_lora(model: ModelConfig, lora: LoraConfig) -> Params:
    """Returns the adapters as float32 `jax.ShapeDtypeStruct`s."""
    return map_specs(lambda spec: jax.ShapeDtypeStruct(spec.shape, jnp.float32), lora_specs(model, lora))


def init_lora(model: ModelConfig, lora: LoraConfig, key: jax.Array) -> Params:
    """Returns fresh adapters that change nothing yet: A uniform in +-1/sqrt(inputs), B zero, as peft begins."""
    params = {}
    for target, factors in lora_specs(model, lora).items():
        key, own = jax.random.split(key)
        shape = factors["a"].shape
        bound = math.prod(shape[1:-1]) ** -0.5  # kaiming_uniform(a=sqrt(5)) of torch
        params[target] = {
            "a": jax.random.uniform(own, shape, jnp.float32, -bound, bound),
            "b": jnp.zeros(factors["b"].shape, jnp.float32),
        }
    return params


def count_lora(model: ModelConfig, lora: LoraConfig) -> int:
    """Returns the number of trained parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_lora(model, lora)))


def merge_lora(params: Params, adapters: Params, lora: LoraConfig) -> Params:
    """Returns float32 parameters that compute without adapters what `params` compute with them: W + scale * A B.

    Args:
      params: the base, as `model/params.py` lays it out; may be donated.
      adapters: as `lora_specs` declares them.
      lora: their scale.
    """
    merged = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    for target, factors in adapters.items():
        into, out = LAYOUTS[target]
        product = jnp.einsum(
            f"L{into}R,LR{out}->L{into}{out}", factors["a"], factors["b"], precision=jax.lax.Precision.HIGHEST
        )
        block = _block(merged["layers"], target)
        block["kernel"] = block["kernel"] + lora.scale * product
    return merged


def _block(layers: dict[str, Any], target: str) -> dict[str, Any]:
    return layers["attn" if target in ("q", "k", "v", "o") else "mlp"][target]
