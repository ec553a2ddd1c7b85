"""The parts of Llama's decoder layer as flax.nnx modules. Each parameter is declared once: shape, logical axes, init.

The abstract tree, the shardings, the initial values, the parameter count and the check of a converted model all derive
from these declarations (`model/params.py`). nnx is the way to write modules and nothing more: everybody else sees a
nested dict of arrays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxwiz.model.config import LlamaConfig, ModelConfig, axis_sizes
from jaxwiz.model.lora import LAYOUTS, Adapters, corrected
from jaxwiz.model.product import Product
from jaxwiz.model.remat import FEED_FORWARD, named
from jaxwiz.model.rope import Rotation, rotate

# (q [B,T,N,H], k [B,T,K,H], v [B,T,K,H]) -> [B,T,N,H]: attention over whatever the caller keeps.
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

INIT_STDDEV = 0.02  # initializer_range of LlamaConfig in transformers

# Axis letter -> logical axis, which `sharding/rules.py` maps to mesh axes.
_LOGICAL_AXES = {"D": "embed", "N": "heads", "K": "kv_heads", "H": "head_dim", "F": "mlp", "M": "fused"}


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], stddev: float = INIT_STDDEV) -> nnx.Param:
    """Returns a parameter with normally distributed initial values and mean 0."""
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * stddev, axes=axes)


class RMSNorm(nnx.Module):
    """Root-mean-square norm, computed in float32 (arXiv 1910.07467)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.hidden_size, jnp.float32), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` [..., D] divided by its root mean square and scaled, in x's dtype."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + self.epsilon)).astype(x.dtype) * self.scale[...]


class Projection(nnx.Module):
    """A linear map from some axes to others: y = x kernel + bias, and an adapter's correction where there is one."""

    def __init__(
        self, config: ModelConfig, rngs: nnx.Rngs, target: str, *, bias: bool, stddev: float = INIT_STDDEV
    ) -> None:
        self.target = target
        into, out = LAYOUTS[target]
        sizes = axis_sizes(config)
        shape, axes = tuple(sizes[a] for a in into + out), tuple(_LOGICAL_AXES[a] for a in into + out)
        self.kernel = normal(rngs, shape, axes, stddev)
        if bias:
            self.bias = nnx.Param(jnp.zeros(shape[len(into) :], jnp.float32), axes=axes[len(into) :])

    def __call__(self, x: jax.Array, adapters: Adapters | None = None, product: Product = jnp.einsum) -> jax.Array:
        """Returns the map of `x` [B, T, *in], as [B, T, *out]."""
        into, out = LAYOUTS[self.target]
        y = product(f"BT{into},{into}{out}->BT{out}", x, self.kernel[...])
        if hasattr(self, "bias"):
            y = y + self.bias[...]
        return corrected(y, self.target, x, adapters)


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        bias = config.attention_bias
        self.q = Projection(config, rngs, "q", bias=bias)
        self.k = Projection(config, rngs, "k", bias=bias)
        self.v = Projection(config, rngs, "v", bias=bias)
        self.o = Projection(config, rngs, "o", bias=bias)

    def __call__(
        self,
        x: jax.Array,
        turn: Rotation,
        attend: Attend,
        adapters: Adapters | None = None,
        product: Product = jnp.einsum,
    ) -> jax.Array:
        """Returns the attention block's output [B, T, D] for normed input `x` [B, T, D]."""
        q = rotate(self.q(x, adapters, product), turn)
        k = rotate(self.k(x, adapters, product), turn)
        return self.o(attend(q, k, self.v(x, adapters, product)), adapters, product)


class FeedForward(nnx.Module):
    """The SwiGLU block (arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        bias = config.mlp_bias
        self.gate = Projection(config, rngs, "gate", bias=bias)
        self.up = Projection(config, rngs, "up", bias=bias)
        self.down = Projection(config, rngs, "down", bias=bias)

    def __call__(self, x: jax.Array, adapters: Adapters | None = None, product: Product = jnp.einsum) -> jax.Array:
        """Returns the block's output [B, T, D] for normed input `x` [B, T, D]."""
        gate = named(FEED_FORWARD, self.gate(x, adapters, product))
        up = named(FEED_FORWARD, self.up(x, adapters, product))
        return self.down(jax.nn.silu(gate) * up, adapters, product)


class DecoderLayer(nnx.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.attn_norm = RMSNorm(config, rngs)
        self.attn = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        turn: Rotation,
        attend: Attend,
        adapters: Adapters | None = None,
        product: Product = jnp.einsum,
    ) -> jax.Array:
        """Returns the residual stream [B, T, D] after this layer.

        Args:
          x: the residual stream [B, T, D] before it.
          turn: the rotation of each position's queries and keys.
          attend: attention over whatever the caller keeps.
          adapters: low-rank corrections of the projections; None: there are none.
          product: how activations are multiplied with kernels, see `model/product.py`.
        """
        with jax.named_scope("attention"):
            x = x + self.attn(self.attn_norm(x), turn, attend, adapters, product)
        with jax.named_scope("feed_forward"):
            return x + self.mlp(self.mlp_norm(x), adapters, product)


class Embedding(nnx.Module):
    """The token embedding table, also the output projection where the two are tied."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.tokens = normal(rngs, (config.vocab_size, config.hidden_size), ("vocab", "embed"))


class Head(nnx.Module):
    """The output projection of a model with untied embeddings."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.kernel = normal(rngs, (config.hidden_size, config.vocab_size), ("embed", "vocab"))
