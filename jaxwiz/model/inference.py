"""The decoder as generation wants it: weights laid out once for many steps of few tokens, and the pass over pages.

A step at a small batch takes as long as reading the weights does, so they are read once and as they lie. Layers are a
tuple and not scanned: a scan copies each layer's slice before it multiplies. What meets the same input is one matrix
(q, k and v in the order of kv heads, so that splitting them over devices keeps a head's queries with its keys; gate and
up), and the output head lies as [D, V], from which a tied embedding is looked up by columns. Families differ in which
arrays there are (biases of norms, a gate, a table of positions), not in how they are laid out.

Kernels are float32, bfloat16 or int8. In int8 each output channel has a scale, the largest magnitude over 127. On a CPU
the activations of a row are rounded to int8 for the product too, with a scale of their own, since only that form of it
is multiplied as it lies there; elsewhere kernels are widened within the product. `model/decoder.py` is the definition
that all this must equal.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.model.config import LlamaConfig, ModelConfig
from jaxwiz.model.gpt_bigcode import gelu, layer_norm
from jaxwiz.model.lora import Adapters
from jaxwiz.model.pages import PagedCache, PageView, paged_attention, write_tokens
from jaxwiz.model.params import Params
from jaxwiz.model.rope import rotate, rotation
from jaxwiz.sharding.rules import RULES, sharding_of

_LARGEST_INT8 = 127


class Matrix(NamedTuple):
    """A linear map.

    Attributes:
      kernel: [I, *out].
      scale: float32 [*out], what the result is multiplied by if the kernel is int8; else None.
      bias: [*out] or None.
    """

    kernel: jax.Array
    scale: jax.Array | None = None
    bias: jax.Array | None = None


class Norm(NamedTuple):
    """What a norm multiplies with and adds.

    Attributes:
      scale: [D].
      bias: [D]; None: it adds nothing, and it subtracts no mean either: it is an RMSNorm.
    """

    scale: jax.Array
    bias: jax.Array | None = None


class LayerWeights(NamedTuple):
    """One layer. A is the number of matrices that are one: G queries, key and value of a kv head; gate and up, or up.

    Attributes:
      attn_norm: scale and bias [D].
      qkv: kernel [D, K, A, H].
      out: kernel [K * G * H, D].
      mlp_norm: scale and bias [D].
      gate_up: kernel [D, A, F].
      down: kernel [F, D].
    """

    attn_norm: Norm
    qkv: Matrix
    out: Matrix
    mlp_norm: Norm
    gate_up: Matrix
    down: Matrix


class InferenceWeights(NamedTuple):
    """A whole model.

    Attributes:
      layers: one entry a layer.
      norm: scale and bias [D] of the last norm.
      head: kernel [D, V].
      embed: [V, D]; None where it is the head.
      positions: [P, D], added to embeddings; None: positions rotate queries and keys instead.
    """

    layers: tuple[LayerWeights, ...]
    norm: Norm
    head: Matrix
    embed: jax.Array | None
    positions: jax.Array | None


# The logical axes of each leaf, for `sharding/rules.py`; scales and biases have a kernel's without the first.
_AXES: dict[str, tuple[str, ...]] = {
    "attn_norm": ("norm",),
    "qkv": ("embed", "kv_heads", "fused", "head_dim"),
    "out": ("heads", "embed"),
    "mlp_norm": ("norm",),
    "gate_up": ("embed", "fused", "mlp"),
    "down": ("mlp", "embed"),
    "norm": ("norm",),
    "head": ("embed", "vocab"),
    "embed": ("vocab", "embed"),
    "positions": ("positions", "embed"),
}


def compute_dtype(weights_dtype: str) -> jnp.dtype:
    """Returns the dtype of activations beside weights of "float32", "bfloat16" or "int8"."""
    wide = weights_dtype == "float32" or (weights_dtype == "int8" and jax.default_backend() == "cpu")
    return jnp.dtype(jnp.float32 if wide else jnp.bfloat16)


def inference_weights(params: Params, config: ModelConfig, weights_dtype: str) -> InferenceWeights:
    """Returns a model's parameters as generation wants them.

    Args:
      params: as `model/params.py` lays them out.
      config: the model's shape.
      weights_dtype: "float32", "bfloat16" or "int8".
    """
    dtype = compute_dtype(weights_dtype)
    layers = tuple(
        _layer_weights(params["layers"], index, config, weights_dtype, dtype) for index in range(config.num_layers)
    )
    table, positions = params["embed"]["tokens"], params["embed"].get("positions")
    head = _matrix(table.T if config.tie_embeddings else params["head"]["kernel"], None, weights_dtype, dtype)
    return InferenceWeights(
        layers,
        _norm_weights(params["norm"], dtype),
        head,
        None if config.tie_embeddings else table.astype(dtype),
        None if positions is None else positions.astype(dtype),
    )


def _norm_weights(norm: Params, dtype: jnp.dtype) -> Norm:
    return Norm(**{name: leaf.astype(dtype) for name, leaf in norm.items()})


@functools.partial(jax.jit, static_argnames=("config", "weights_dtype", "dtype"))
def _layer_weights(
    layers: Params, index: int, config: ModelConfig, weights_dtype: str, dtype: jnp.dtype
) -> LayerWeights:
    layer = jax.tree.map(lambda leaf: leaf[index], layers)
    attn, mlp = layer["attn"], layer["mlp"]
    D, K, H = config.hidden_size, config.num_kv_heads, config.head_dim

    def by_kv_head(name: str) -> jax.Array:
        """Returns queries [..., K, G, H] beside key and value [..., K, 1, H] of each kv head."""
        if "qkv" in attn:  # so already, of the only one
            return jnp.expand_dims(attn["qkv"][name], -3)
        parts = (attn["q"][name], attn["k"][name], attn["v"][name])
        lead = parts[0].shape[:-2]
        return jnp.concatenate([part.reshape(*lead, K, -1, H) for part in parts], axis=-2)

    def gate_and_up(name: str) -> jax.Array:
        return jnp.stack([mlp[part][name] for part in ("gate", "up") if part in mlp], axis=-2)

    def matrix(kernel: jax.Array, bias: jax.Array | None) -> Matrix:
        return _matrix(kernel, bias, weights_dtype, dtype)

    return LayerWeights(
        _norm_weights(layer["attn_norm"], dtype),
        matrix(by_kv_head("kernel"), by_kv_head("bias") if "bias" in attn["o"] else None),
        matrix(attn["o"]["kernel"].reshape(-1, D), attn["o"].get("bias")),
        _norm_weights(layer["mlp_norm"], dtype),
        matrix(gate_and_up("kernel"), gate_and_up("bias") if "bias" in mlp["down"] else None),
        matrix(mlp["down"]["kernel"], mlp["down"].get("bias")),
    )


@functools.partial(jax.jit, static_argnames=("weights_dtype", "dtype"))
def _matrix(kernel: jax.Array, bias: jax.Array | None, weights_dtype: str, dtype: jnp.dtype) -> Matrix:
    bias = None if bias is None else bias.astype(dtype)
    if weights_dtype != "int8":
        return Matrix(kernel.astype(weights_dtype), None, bias)
    rounded, scale = _rounded(kernel, axis=0)
    return Matrix(rounded, scale[0], bias)


def _rounded(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns `x` as int8 and the float32 scale that brings it back, one for all values along `axis`."""
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=axis, keepdims=True) / _LARGEST_INT8
    return jnp.round(wide / jnp.where(scale > 0, scale, 1.0)).astype(jnp.int8), scale


def weight_shardings(weights: InferenceWeights, mesh: Mesh) -> InferenceWeights:
    """Returns how each array of `weights`, or its shape, lies on the mesh.

    Raises:
      UserError: sizes that do not divide; see `sharding_of`.
    """

    def place(name: str, leaf: jax.Array | Matrix | Norm | None) -> Any:
        axes = _AXES[name]
        if isinstance(leaf, Norm):
            return jax.tree.map(lambda part: sharding_of(mesh, name, part.shape, axes), leaf)
        if isinstance(leaf, Matrix):
            parts: list[Any] = [sharding_of(mesh, name, leaf.kernel.shape, axes)]
            for part in (leaf.scale, leaf.bias):
                parts.append(None if part is None else sharding_of(mesh, name, part.shape, axes[1:]))
            return Matrix(*parts)
        return None if leaf is None else sharding_of(mesh, name, leaf.shape, axes)

    layers = tuple(
        LayerWeights(**{name: place(name, leaf) for name, leaf in layer._asdict().items()}) for layer in weights.layers
    )
    others = {name: place(name, leaf) for name, leaf in weights._asdict().items() if name != "layers"}
    return InferenceWeights(layers, **others)


def paged_hidden_states(
    weights: InferenceWeights,
    config: ModelConfig,
    tokens: jax.Array,
    view: PageView,
    cache: PagedCache,
    *,
    row_lengths: jax.Array,
    columns: int | None = None,
    adapters: Adapters | None = None,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, PagedCache]:
    """Returns the normed final hidden states [B, T, D] and the cache with these tokens' keys and values written.

    Args:
      weights: the model.
      config: its shape.
      tokens: int32 [B, T].
      view: where they lie in the cache.
      cache: keys and values of earlier tokens; donate it to update in place.
      row_lengths: int32 [B], how many tokens each row will have in the end; see `model/rope.py`.
      columns: pages of a row attended to at once; None: one by one. See `paged_attention`.
      adapters: low-rank corrections of the projections; None: there are none.
      mesh: the devices that the weights are split over; None: one.
    """
    B, T = tokens.shape
    K, H, G = config.num_kv_heads, config.head_dim, config.num_heads // config.num_kv_heads
    turn = None
    if isinstance(config, LlamaConfig):  # the barrier keeps the compiler from working out the cosines in each layer
        turn = jax.lax.optimization_barrier(rotation(config, view.positions, row_lengths=row_lengths))
    x = _embed(weights, tokens, mesh)
    if weights.positions is not None:
        x = x + weights.positions[view.positions]
    keys, values = list(cache.k), list(cache.v)
    for index, layer in enumerate(weights.layers):
        corrections = _Corrections(adapters, index)
        normed = _norm(x, layer.attn_norm, config)
        qkv = multiply(normed, layer.qkv)
        qkv = corrections.add_qkv(qkv, normed)
        turned = qkv[..., : G + 1, :]
        if turn is not None:
            turned = rotate(turned.reshape(B, T, K * (G + 1), H), turn).reshape(B, T, K, G + 1, H)
        keys[index] = write_tokens(keys[index], turned[..., G, :], view)
        values[index] = write_tokens(values[index], qkv[..., G + 1, :], view)
        mixed = paged_attention(turned[..., :G, :], keys[index], values[index], view, columns)
        x = x + corrections.add(multiply(mixed.reshape(B, T, -1), layer.out), "o", mixed.reshape(B, T, K * G, H))
        normed = _norm(x, layer.mlp_norm, config)
        gate_up = corrections.add_gate_up(multiply(normed, layer.gate_up), normed)
        activated = _activated(gate_up, config)
        x = x + corrections.add(multiply(activated, layer.down), "down", activated)
    return _norm(x, weights.norm, config), PagedCache(tuple(keys), tuple(values))


def head_logits(weights: InferenceWeights, hidden: jax.Array) -> jax.Array:
    """Returns float32 next-token logits [..., V] of normed hidden states [..., D]."""
    return _product(hidden, weights.head)


def multiply(x: jax.Array, matrix: Matrix) -> jax.Array:
    """Returns x kernel + bias, [..., *out] in x's dtype, of `x` [..., I]."""
    y = _product(x, matrix).astype(x.dtype)
    return y if matrix.bias is None else y + matrix.bias


def _product(x: jax.Array, matrix: Matrix) -> jax.Array:
    """Returns x kernel [..., *out], summed in float32."""
    rows, kernel = x.reshape(-1, x.shape[-1]), matrix.kernel
    count = rows.shape[0]
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and count == 1 and kernel.dtype != jnp.float32:
        # XLA's CPU backend has quick products of bfloat16 and of int8 for matrices, not for a single row.
        rows = jnp.concatenate([rows, rows])

    def times(rows: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
        return jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), preferred_element_type=dtype)

    if matrix.scale is None:
        y = times(rows, kernel, jnp.float32)
    elif on_cpu:
        rounded, row_scale = _rounded(rows, axis=1)
        y = times(rounded, kernel, jnp.int32).astype(jnp.float32)
        y = y * row_scale.reshape(-1, *[1] * (y.ndim - 1))
    else:
        y = times(rows, kernel.astype(x.dtype), jnp.float32)
    y = y[:count].reshape(*x.shape[:-1], *kernel.shape[1:])
    return y if matrix.scale is None else y * matrix.scale


def _embed(weights: InferenceWeights, tokens: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Returns the embeddings [B, T, D] of tokens [B, T]; on a mesh each device looks into its own part of the table."""
    axis, (table, scale, _) = (1, weights.head) if weights.embed is None else (0, Matrix(weights.embed))
    dtype = weights.norm.scale.dtype

    def at(tokens: jax.Array, table: jax.Array, scale: jax.Array | None) -> jax.Array:
        found = (table[tokens] if axis == 0 else jnp.moveaxis(table[:, tokens], 0, -1)).astype(dtype)
        return found if scale is None else found * scale[tokens][..., None].astype(dtype)

    if mesh is None:
        return at(tokens, table, scale)
    vocab, embed = RULES["vocab"], RULES["embed"]

    def local(tokens: jax.Array, table: jax.Array, scale: jax.Array | None) -> jax.Array:
        first = jax.lax.axis_index(vocab) * table.shape[axis]
        here = (tokens >= first) & (tokens < first + table.shape[axis])
        return jax.lax.psum(jnp.where(here[..., None], at(jnp.where(here, tokens - first, 0), table, scale), 0), vocab)

    lies = PartitionSpec(vocab, embed) if axis == 0 else PartitionSpec(embed, vocab)
    look_up = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), lies, PartitionSpec(vocab)),
        out_specs=PartitionSpec(None, None, embed),
    )
    return look_up(tokens, table, scale)


def _norm(x: jax.Array, norm: Norm, config: ModelConfig) -> jax.Array:
    if norm.bias is not None:
        return layer_norm(x, norm.scale, norm.bias, config.norm_epsilon)
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean_square + config.norm_epsilon)).astype(x.dtype) * norm.scale


def _activated(gate_up: jax.Array, config: ModelConfig) -> jax.Array:
    """Returns what the feed-forward block's second product takes [B, T, F], of what its first gives [B, T, A, F]."""
    if isinstance(config, LlamaConfig):
        return jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]
    return gelu(gate_up[..., 0, :], config)


class _Corrections:
    """What adapters add to the projections of one layer."""

    def __init__(self, adapters: Adapters | None, layer: int) -> None:
        self._adapters = None if adapters is None else jax.tree.map(lambda leaf: leaf[layer], adapters)

    def add(self, y: jax.Array, target: str, x: jax.Array) -> jax.Array:
        """Returns `y` with the correction of `target` for its input `x`."""
        if self._adapters is None or target not in self._adapters.params:
            return y
        return y + self._adapters.correction(target, x).reshape(y.shape).astype(y.dtype)

    def add_qkv(self, qkv: jax.Array, x: jax.Array) -> jax.Array:
        """Returns `qkv` [B, T, K, G + 2, H] corrected."""
        if self._adapters is None:
            return qkv
        q, k, v = qkv[..., :-2, :], qkv[..., -2:-1, :], qkv[..., -1:, :]
        return jnp.concatenate([self.add(q, "q", x), self.add(k, "k", x), self.add(v, "v", x)], axis=-2)

    def add_gate_up(self, gate_up: jax.Array, x: jax.Array) -> jax.Array:
        """Returns `gate_up` [B, T, 2, F] corrected."""
        if self._adapters is None:
            return gate_up
        return jnp.stack([self.add(gate_up[..., 0, :], "gate", x), self.add(gate_up[..., 1, :], "up", x)], axis=-2)
