"""Low-rank adapters (LoRA, arXiv 2106.09685) in a forward pass: beside each targeted projection y = x W runs

    y + scale * (dropout(x) A) B

with W frozen and only A and B trained. Nothing is merged here. Layouts are einsum letters, as for the projections
themselves (R: rank); `lora_params.py` derives shapes, initial values and the merge from the same table.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxwiz.model.lora_config import ALL_TARGETS, LoraConfig

# Projection -> (axes that it takes in, axes that it gives out).
LAYOUTS: dict[str, tuple[str, str]] = {
    "q": ("D", "NH"),
    "k": ("D", "KH"),
    "v": ("D", "KH"),
    "qkv": ("D", "MH"),  # of GPTBigCode, which takes no adapters
    "o": ("NH", "D"),
    "gate": ("D", "F"),
    "up": ("D", "F"),
    "down": ("F", "D"),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapters:
    """The adapters of all layers, or, within the scan over layers, those of one.

    Attributes:
      params: {target: {"a": [L, *in, R], "b": [L, R, *out]}}, float32; without L for one layer.
      key: random key of the dropout, [L] keys for `by_layer`; None: no dropout, as outside training.
      config: rank, scale and dropout.
    """

    params: dict[str, Any]
    config: LoraConfig = dataclasses.field(metadata={"static": True})
    key: jax.Array | None = None

    def by_layer(self, num_layers: int) -> "Adapters":
        """Returns these adapters with a key for each layer, ready to be scanned over."""
        if self.key is None or self.config.dropout == 0:
            return dataclasses.replace(self, key=None)
        return dataclasses.replace(self, key=jax.random.split(self.key, num_layers))

    def correction(self, target: str, x: jax.Array) -> jax.Array:
        """Returns what one layer's adapter adds to its projection of `x` [B, T, *in]: [B, T, *out], in x's dtype."""
        into, out = LAYOUTS[target]
        factors = self.params[target]
        a, b = factors["a"].astype(x.dtype), factors["b"].astype(x.dtype)
        if self.key is not None:
            kept = 1.0 - self.config.dropout
            mask = jax.random.bernoulli(jax.random.fold_in(self.key, ALL_TARGETS.index(target)), kept, x.shape)
            x = jnp.where(mask, x / kept, 0).astype(x.dtype)
        with jax.named_scope("lora"):
            narrow = jnp.einsum(f"BT{into},{into}R->BTR", x, a)
            return jnp.einsum(f"BTR,R{out}->BT{out}", narrow, b) * self.config.scale


def corrected(y: jax.Array, target: str, x: jax.Array, adapters: Adapters | None) -> jax.Array:
    """Returns a projection's output `y` with the adapter's correction for its input `x`, if there is an adapter."""
    if adapters is None or target not in adapters.params:
        return y
    return y + adapters.correction(target, x)
