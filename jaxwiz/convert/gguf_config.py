"""The model's shape from a GGUF's metadata.

What llama.cpp computes and this decoder does not is refused by name. Llama 3's rope scaling is not in the metadata: its
converter works out the factor by which each frequency is divided and stores them as the tensor rope_freqs.weight, from
which the parameters are found again.
"""

import math
from typing import Any

import numpy as np

from jaxwiz.convert.names import ConversionError
from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.rope_config import AnyScaling, LinearScaling, Llama3Scaling, YarnScaling

# Metadata (below "llama.") that would change the computation, with the values that the decoder implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": (None, "none", "linear", "yarn"),
    "rope.scale_linear": (None, 1.0),
    "rope.scaling.attn_factor": (None, 0.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (None, 0.0),
    "rope.scaling.yarn_ext_factor": (None, -1.0, 1.0),
    "rope.scaling.yarn_attn_factor": (None, -1.0, 1.0),
    "attention.sliding_window": (None, 0),
    "expert_count": (None, 0),
}
ROPE_FACTORS = "rope_freqs.weight"  # a tensor, but part of the config
_NEEDED = ("embedding_length", "feed_forward_length", "block_count", "attention.head_count", "context_length")
_OPTIONAL_SIZES = ("attention.head_count_kv", "attention.key_length", "rope.dimension_count")


def model_config(
    metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]], rope_factors: np.ndarray | None, where: str
) -> LlamaConfig:
    """Returns the model's shape.

    Args:
      metadata: the GGUF's metadata.
      shapes: GGUF name -> shape of every tensor.
      rope_factors: the tensor rope_freqs.weight, if the file has one.
      where: the GGUF's path, for messages.

    Raises:
      ConversionError: another architecture, metadata that is missing, or what this decoder does not compute.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ConversionError(
            f"{where}: general.architecture = {architecture!r}; must be 'llama', this decoder computes no other"
        )
    values = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    faults = [f"llama.{key}: missing" for key in _NEEDED if key not in values]
    faults += [
        f"llama.{key} = {values[key]!r}: not supported by this decoder"
        for key, allowed in _IMPLEMENTED.items()
        if values.get(key) not in allowed
    ]
    sizes = {key: values[key] for key in (*_NEEDED, *_OPTIONAL_SIZES) if key in values}
    faults += [
        f"llama.{key} = {size!r}: must be one number above 0"
        for key, size in sizes.items()
        if not isinstance(size, int) or size <= 0
    ]
    if "token_embd.weight" not in shapes:
        faults.append("token_embd.weight: missing")
    if not faults and sizes["block_count"] > len(shapes):
        faults.append(f"llama.block_count = {sizes['block_count']}: the file holds only {len(shapes)} tensors")
    if faults:
        raise ConversionError(f"{where}: " + "; ".join(faults))
    heads = sizes["attention.head_count"]
    head_dim = sizes.get("attention.key_length", sizes["embedding_length"] // heads)
    rotated = sizes.get("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise ConversionError(
            f"{where}: llama.rope.dimension_count = {rotated}: must be the head size {head_dim}, "
            "this decoder rotates whole heads"
        )
    theta = _shortest(values.get("rope.freq_base", 10_000.0))
    try:
        return LlamaConfig(
            vocab_size=shapes["token_embd.weight"][0],
            hidden_size=sizes["embedding_length"],
            intermediate_size=sizes["feed_forward_length"],
            num_layers=sizes["block_count"],
            num_heads=heads,
            num_kv_heads=sizes.get("attention.head_count_kv", heads),
            head_dim=head_dim,
            rope_theta=theta,
            norm_epsilon=_shortest(values.get("attention.layer_norm_rms_epsilon", 1e-5)),
            max_positions=sizes["context_length"],
            tie_embeddings="output.weight" not in shapes,
            attention_bias=any(".attn_" in name and name.endswith(".bias") for name in shapes),
            mlp_bias=any(".ffn_" in name and name.endswith(".bias") for name in shapes),
            rope_scaling=_rope_scaling(values, rope_factors, theta, head_dim),
        )
    except UserError as error:
        raise ConversionError(f"{where}: {error}") from None


def _rope_scaling(values: dict[str, Any], factors: np.ndarray | None, theta: float, head_dim: int) -> AnyScaling | None:
    kind = values.get("rope.scaling.type", "none")
    if factors is not None:
        if kind != "none":
            raise UserError(f"llama.rope.scaling.type = {kind!r} beside {ROPE_FACTORS}: must not be there together")
        return _llama3_scaling(values, factors.astype(np.float64).ravel(), theta, head_dim)
    if kind == "none":
        return None
    if "rope.scaling.factor" not in values:
        raise UserError(f"llama.rope.scaling.factor: missing, though llama.rope.scaling.type = {kind!r}")
    factor = _shortest(values["rope.scaling.factor"])
    if kind == "linear":
        return LinearScaling(factor=factor)
    return YarnScaling(
        factor=factor,
        original_positions=values.get("rope.scaling.original_context_length", values["context_length"]),
        beta_fast=_shortest(values.get("rope.scaling.yarn_beta_fast", 32.0)),
        beta_slow=_shortest(values.get("rope.scaling.yarn_beta_slow", 1.0)),
    )


def _llama3_scaling(values: dict[str, Any], factors: np.ndarray, theta: float, head_dim: int) -> Llama3Scaling | None:
    """Returns the scaling that divides frequencies by `factors` [H/2], None where they are all one.

    The largest factor is the scaling's own; the other parameters are the same in every Llama 3 model.
    """
    if np.all(factors == 1):
        return None
    scaling = Llama3Scaling(
        factor=_shortest(float(factors.max())),
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_positions=values.get("rope.scaling.original_context_length", 8192),
    )
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    kept = (scaling.original_positions / wavelengths - 1) / 3  # 3: high_freq_factor - low_freq_factor
    expected = 1 / (np.clip(kept, 0, 1) + (1 - np.clip(kept, 0, 1)) / scaling.factor)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise UserError(
            f"{ROPE_FACTORS}: its frequency factors are not those of Llama 3's scaling by {scaling.factor:g} from "
            f"{scaling.original_positions:,} positions, and this decoder knows no others"
        )
    return scaling


def _shortest(value: float) -> float:
    """Returns the number that was meant: GGUF keeps 1e-5 as a float32, which as a float64 reads 9.99999974e-06."""
    return float(str(np.float32(value)))
