"""Floating-point operations of the decoder, and what devices can do: the two sides of MFU.

Counted as the field does for causal models: a multiply-add is two, attention over half the square, the backward pass
twice the forward, rematerialisation not at all.
"""

import math

import jax

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import count_lora
from jaxwiz.model.params import param_specs

# Dense bfloat16 peak in FLOP/s by jax.Device.device_kind; from the makers' data sheets.
_PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def matmul_params(config: ModelConfig) -> int:
    """Returns the parameters that multiply every token: the kernels, a tied embedding as the head's one among them."""
    kernels: list[int] = []
    for path, spec in jax.tree.leaves_with_path(param_specs(config), is_leaf=lambda node: hasattr(node, "axes")):
        if path[-1].key == "kernel" or (config.tie_embeddings and path[-1].key == "tokens"):
            kernels.append(math.prod(spec.shape))
    return sum(kernels)


def forward_flops_per_token(config: ModelConfig, mean_context: float) -> float:
    """Returns the FLOPs of one token's forward pass.

    Args:
      config: the model's shape.
      mean_context: keys a query sees on average; (T + 1) / 2 for an unpacked row of T tokens.
    """
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * mean_context  # q k^T and weights v
    return 2 * matmul_params(config) + attention


def train_flops_per_token(config: ModelConfig, mean_context: float, lora: LoraConfig | None = None) -> float:
    """Returns the FLOPs of one token's forward and backward pass.

    Args:
      config: the model's shape.
      mean_context: see `forward_flops_per_token`.
      lora: adapters that are trained instead; then no gradient of the model's own parameters is computed.
    """
    whole = 3 * forward_flops_per_token(config, mean_context)
    return whole if lora is None else whole - 2 * matmul_params(config) + 6 * count_lora(config, lora)


def device_peak_flops(device_kind: str) -> float | None:
    """Returns a device's dense bfloat16 peak in FLOP/s, or None where the table does not know it (a CPU)."""
    return _PEAK_FLOPS.get(device_kind)
