"""The parts of a decoder layer as flax.nnx modules. Each parameter is declared here once: shape, logical axes, init.

The abstract tree, the shardings, the initial values, the parameter count and the check of a converted model all derive
from these declarations (`model/params.py`). nnx is the way to write modules and nothing more: everybody else sees a
nested dict of arrays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.rope import Rotation, rotate

# (q [B,T,N,H], k [B,T,K,H], v [B,T,K,H]) -> [B,T,N,H]: attention over whatever the caller keeps.
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

_INIT_STDDEV = 0.02  # initializer_range of LlamaConfig in transformers


def _normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * _INIT_STDDEV, axes=axes)


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


class Attention(nnx.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        D, N, K, H = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        self.q = _normal(rngs, (D, N, H), ("embed", "heads", "head_dim"))
        self.k = _normal(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.v = _normal(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"))
        self.o = _normal(rngs, (N, H, D), ("heads", "head_dim", "embed"))

    def __call__(self, x: jax.Array, turn: Rotation, attend: Attend) -> jax.Array:
        """Returns the attention block's output [B, T, D] for normed input `x` [B, T, D]."""
        q = rotate(jnp.einsum("BTD,DNH->BTNH", x, self.q[...]), turn)
        k = rotate(jnp.einsum("BTD,DKH->BTKH", x, self.k[...]), turn)
        v = jnp.einsum("BTD,DKH->BTKH", x, self.v[...])
        return jnp.einsum("BTNH,NHD->BTD", attend(q, k, v), self.o[...])


class FeedForward(nnx.Module):
    """The SwiGLU block (arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self.gate = _normal(rngs, (D, F), ("embed", "mlp"))
        self.up = _normal(rngs, (D, F), ("embed", "mlp"))
        self.down = _normal(rngs, (F, D), ("mlp", "embed"))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the block's output [B, T, D] for normed input `x` [B, T, D]."""
        gate = jnp.einsum("BTD,DF->BTF", x, self.gate[...])
        up = jnp.einsum("BTD,DF->BTF", x, self.up[...])
        return jnp.einsum("BTF,FD->BTD", jax.nn.silu(gate) * up, self.down[...])


class DecoderLayer(nnx.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.attn_norm = RMSNorm(config, rngs)
        self.attn = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config, rngs)
        self.mlp = FeedForward(config, rngs)

    def __call__(self, x: jax.Array, turn: Rotation, attend: Attend) -> jax.Array:
        """Returns the residual stream [B, T, D] after this layer."""
        with jax.named_scope("attention"):
            x = x + self.attn(self.attn_norm(x), turn, attend)
        with jax.named_scope("feed_forward"):
            return x + self.mlp(self.mlp_norm(x))


class Embedding(nnx.Module):
    """The token embedding table, also the output projection where the two are tied."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.tokens = _normal(rngs, (config.vocab_size, config.hidden_size), ("vocab", "embed"))


class Head(nnx.Module):
    """The output projection of a model with untied embeddings."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs) -> None:
        self.kernel = _normal(rngs, (config.hidden_size, config.vocab_size), ("embed", "vocab"))
