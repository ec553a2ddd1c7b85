"""An estimate of the memory that a training step needs on each device, from shapes alone, for `jaxwiz check`.

Counted: parameters, gradients, AdamW moments, activations kept for the backward pass, one chunk of logits. Not counted:
what the compiler keeps beside them (copies, gathered layers, workspaces), so leave a fifth of the memory free.
"""

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import count_params
from jaxwiz.train.config import TrainConfig

GIB = 2**30
_FLOAT32 = 4


def step_memory_bytes(
    model: LlamaConfig, config: TrainConfig, sequence_length: int, mesh_sizes: dict[str, int]
) -> dict[str, int]:
    """Returns {kind: bytes on each device} of a training step.

    Args:
      model: the model's shape.
      config: batch and numerics.
      sequence_length: T.
      mesh_sizes: {axis: size}.
    """
    parameter_shards = mesh_sizes["fsdp"] * mesh_sizes["tensor"]
    params = count_params(model) * _FLOAT32 // parameter_shards
    micro_batches = config.batch.micro_batches
    rows = -(-config.batch.rows // (micro_batches * mesh_sizes["data"] * mesh_sizes["fsdp"]))
    layers_kept = 1 if config.compute.remat else model.num_layers
    residuals = model.num_layers * rows * sequence_length * model.hidden_size * _dtype_bytes(config)
    chunk = min(config.compute.loss_chunk_positions, sequence_length)
    return {
        "parameters": params,
        "gradients": params * (2 if micro_batches > 1 else 1),  # of this micro-batch, and their sum
        "moments": 2 * params,
        "activations": residuals + layers_kept * _layer_bytes(model, config, rows, sequence_length, mesh_sizes),
        "logits": 3 * rows * chunk * model.vocab_size * _FLOAT32,
    }


def _layer_bytes(model: LlamaConfig, config: TrainConfig, rows: int, T: int, mesh_sizes: dict[str, int]) -> int:
    """Returns what one layer keeps for its backward pass: norms, projections, scores with softmax, gated product."""
    heads_width = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    split_by_tensor = 2 * heads_width + model.num_heads * model.head_dim + 4 * model.intermediate_size
    per_token = (4 * model.hidden_size + split_by_tensor // mesh_sizes["tensor"]) * _dtype_bytes(config)
    scores = model.num_heads * T * (_FLOAT32 + _dtype_bytes(config)) // mesh_sizes["tensor"]
    return rows * T * (per_token + scores)


def _dtype_bytes(config: TrainConfig) -> int:
    return {"float32": 4, "bfloat16": 2}[config.compute.dtype]
