"""The decoder's forward pass, Llama's and its relatives', as pure functions of a parameter dict.

`hidden_states` takes whole (packed) rows; what reads and writes a cache of keys and values is `model/inference.py`.
Layers are scanned over their stacked parameters, so compile time and program size do not grow with depth. Weights are
cast to the compute dtype where they are used; norms, rotations and softmax run in float32.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jaxwiz.model.attention import PackedAttention, blocked_attention
from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.embedding import look_up
from jaxwiz.model.family import family_of
from jaxwiz.model.lora import Adapters
from jaxwiz.model.params import Params, graph_of
from jaxwiz.model.product import choose_product
from jaxwiz.model.remat import ATTENTION, LAYER_INPUT, named, with_remat
from jaxwiz.model.rope import rotation
from jaxwiz.sharding.rules import activation_sharding


def hidden_states(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    compute_dtype: jnp.dtype = jnp.float32,
    attend: PackedAttention = blocked_attention,
    remat: str = "none",
    scan_layers: bool = True,
    adapters: Adapters | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Returns the normed final hidden states [B, T, D] in `compute_dtype`.

    Args:
      params: parameters as `model/params.py` lays them out.
      config: the model's shape.
      tokens: int32 [B, T] in [0, V).
      positions: int32 [B, T], each token's place in its own segment.
      segment_ids: int32 [B, T], equal within an example, 0 for padding; None: each row is one segment.
      compute_dtype: dtype of matmuls and activations.
      attend: the attention kernel; `model/attention_kernels.py` chooses one for a device.
      remat: what a layer keeps for its backward pass, a policy of `model/remat.py`.
      scan_layers: False unrolls the layers, so that a debugger or profiler tells them apart; compiles far slower.
      adapters: low-rank corrections of the projections; None: there are none.
      mesh: the devices over which hidden states are split as `sharding/rules.py` says; None: it is not said.
    """
    turn = rotation(config, positions, segment_ids) if isinstance(config, LlamaConfig) else None
    product = choose_product(compute_dtype, mesh)

    def placed(x: jax.Array) -> jax.Array:
        return x if mesh is None else jax.lax.with_sharding_constraint(x, activation_sharding(mesh))

    def attend_in_row(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return named(ATTENTION, attend(q, k, v, segment_ids))

    def layer(x: jax.Array, scanned: tuple[Params, Adapters | None]) -> tuple[jax.Array, None]:
        layer_params, layer_adapters = scanned
        x = named(LAYER_INPUT, placed(x))
        module = _layer_module(config, layer_params, compute_dtype)
        return module(x, turn, attend_in_row, layer_adapters, product), None

    x = _embed(params, tokens, positions, compute_dtype, mesh)
    layer = with_remat(layer, remat, scanned=scan_layers)
    layers = (params["layers"], adapters and adapters.by_layer(config.num_layers))
    if scan_layers:
        x, _ = jax.lax.scan(layer, x, layers)
    else:
        for index in range(config.num_layers):
            x, _ = layer(x, jax.tree.map(operator.itemgetter(index), layers))
    return _final_norm(params, config, placed(x))


def logits(params: Params, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Returns float32 next-token logits [..., V] of normed hidden states [..., D]."""
    kernel = head_kernel(params, config).astype(hidden.dtype)
    with jax.named_scope("head"):
        return jnp.einsum("...D,DV->...V", hidden, kernel, preferred_element_type=jnp.float32)


def head_kernel(params: Params, config: ModelConfig) -> jax.Array:
    """Returns the output projection [D, V]: its own parameter, or the transposed embedding where the two are tied."""
    return params["embed"]["tokens"].T if config.tie_embeddings else params["head"]["kernel"]


def _embed(params: Params, tokens: jax.Array, positions: jax.Array, dtype: jnp.dtype, mesh: Mesh | None) -> jax.Array:
    """Returns the rows [B, T, D] of the token table, plus those of the position table where the model has one."""

    def rows(table: jax.Array, numbers: jax.Array, axis: str) -> jax.Array:
        return table[numbers].astype(dtype) if mesh is None else look_up(table, numbers, dtype, mesh, axis)

    with jax.named_scope("embed"):
        tables = params["embed"]
        x = rows(tables["tokens"], tokens, "vocab")
        return x + rows(tables["positions"], positions, "positions") if "positions" in tables else x


def _layer_module(config: ModelConfig, layer_params: Params, dtype: jnp.dtype) -> Any:
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), layer_params)
    return nnx.merge(graph_of(family_of(config).layer, config), cast)


def _final_norm(params: Params, config: ModelConfig, x: jax.Array) -> jax.Array:
    norm_params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params["norm"])
    norm: Any = nnx.merge(graph_of(family_of(config).norm, config), norm_params)
    return norm(x)
