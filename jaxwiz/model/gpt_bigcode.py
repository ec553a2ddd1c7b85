"""The parts of a GPTBigCode decoder as flax.nnx modules, beside Llama's in `model/layers.py`, whose rules they keep.

What differs: the position of a token is a row of a learned table, added where it is embedded; norms subtract the mean
and have a bias; one product gives all query heads and the one key and value that they share, in the order in which
Hugging Face's `c_attn` has them; the feed-forward block is two products with a GELU between them. The forward pass over
layers, the loss, the mesh and the cache are those of Llama. Source: `modeling_gpt_bigcode.py` of transformers.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.layers import INIT_STDDEV, Attend, Embedding, Projection, normal
from jaxwiz.model.lora import Adapters
from jaxwiz.model.product import Product
from jaxwiz.model.remat import FEED_FORWARD, named
from jaxwiz.model.rope import Rotation


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Returns `x` [..., D] with mean 0 and variance 1, scaled and shifted, computed in float32, in x's dtype.

    Source: arXiv 1607.06450.
    """
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


def gelu(x: jax.Array, config: GPTBigCodeConfig) -> jax.Array:
    """Returns the GELU of `x` in the form that the config names."""
    return jax.nn.gelu(x, approximate=config.activation == "gelu_tanh")


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias."""

    def __init__(self, config: GPTBigCodeConfig, rngs: nnx.Rngs) -> None:
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.hidden_size, jnp.float32), axes=("norm",))
        self.bias = nnx.Param(jnp.zeros(config.hidden_size, jnp.float32), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the norm of `x` [..., D]."""
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class MultiQueryAttention(nnx.Module):
    """Self-attention of N query heads over one head of keys and values."""

    def __init__(self, config: GPTBigCodeConfig, rngs: nnx.Rngs) -> None:
        self.qkv = Projection(config, rngs, "qkv", bias=True)
        self.o = Projection(config, rngs, "o", bias=True, stddev=_residual_stddev(config))

    def __call__(
        self, x: jax.Array, attend: Attend, adapters: Adapters | None = None, product: Product = jnp.einsum
    ) -> jax.Array:
        """Returns the attention block's output [B, T, D] for normed input `x` [B, T, D]."""
        qkv = self.qkv(x, adapters, product)
        mixed = attend(qkv[..., :-2, :], qkv[..., -2:-1, :], qkv[..., -1:, :])
        return self.o(mixed, adapters, product)


class FeedForward(nnx.Module):
    """Two products with a GELU between them."""

    def __init__(self, config: GPTBigCodeConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.up = Projection(config, rngs, "up", bias=True)
        self.down = Projection(config, rngs, "down", bias=True, stddev=_residual_stddev(config))

    def __call__(self, x: jax.Array, adapters: Adapters | None = None, product: Product = jnp.einsum) -> jax.Array:
        """Returns the block's output [B, T, D] for normed input `x` [B, T, D]."""
        up = named(FEED_FORWARD, self.up(x, adapters, product))
        return self.down(gelu(up, self.config), adapters, product)


class GPTBigCodeLayer(nnx.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: GPTBigCodeConfig, rngs: nnx.Rngs) -> None:
        self.attn_norm = LayerNorm(config, rngs)
        self.attn = MultiQueryAttention(config, rngs)
        self.mlp_norm = LayerNorm(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(
        self,
        x: jax.Array,
        turn: Rotation | None,
        attend: Attend,
        adapters: Adapters | None = None,
        product: Product = jnp.einsum,
    ) -> jax.Array:
        """Returns the residual stream [B, T, D] after this layer; see `DecoderLayer`. `turn` is None: nothing turns."""
        with jax.named_scope("attention"):
            x = x + self.attn(self.attn_norm(x), attend, adapters, product)
        with jax.named_scope("feed_forward"):
            return x + self.mlp(self.mlp_norm(x), adapters, product)


class PositionedEmbedding(Embedding):
    """The tables of tokens and of positions, whose rows are added."""

    def __init__(self, config: GPTBigCodeConfig, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs)
        self.positions = normal(rngs, (config.max_positions, config.hidden_size), ("positions", "embed"))


def _residual_stddev(config: GPTBigCodeConfig) -> float:
    """Returns the spread of the kernels that write to the residual stream: less the deeper the model, as in GPT-2."""
    return INIT_STDDEV / math.sqrt(2 * config.num_layers)
