"""An estimate of the memory that a training step needs on each device, from shapes alone, for `jaxwiz check`.

Counted: parameters, gradients, moments, activations kept for the backward pass, one chunk of logits. Not counted:
what the compiler keeps beside them (copies, gathered layers, workspaces), so leave a fifth of the memory free.
"""

import math

import jax

from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.lora_params import count_lora
from jaxwiz.model.params import count_params
from jaxwiz.sharding.rules import batch_shards
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.optimizer import make_optimizer
from jaxwiz.train.state import abstract_state, trained_specs

GIB = 2**30
_FLOAT32 = 4


def step_memory_bytes(
    model: ModelConfig, config: TrainConfig, sequence_length: int, mesh_sizes: dict[str, int]
) -> dict[str, int]:
    """Returns {kind: bytes on each device} of a training step.

    Args:
      model: the model's shape.
      config: batch and numerics.
      sequence_length: T.
      mesh_sizes: {axis: size}.
    """
    parameter_shards = math.prod(mesh_sizes[axis] for axis in ("fsdp", "context", "tensor"))
    trained = (count_params(model) if config.lora is None else count_lora(model, config.lora)) * _FLOAT32
    trained //= parameter_shards
    frozen = 0 if config.lora is None else count_params(model) * _dtype_bytes(config) // parameter_shards
    micro_batches = config.batch.micro_batches
    rows = -(-config.batch.rows // (micro_batches * batch_shards(mesh_sizes)))
    positions = sequence_length // mesh_sizes["context"]
    activations = rows * positions * _activation_bytes_per_token(model, config, sequence_length, mesh_sizes)
    chunk = min(config.compute.loss_chunk_positions, positions)
    return {
        "parameters": trained + frozen,
        "gradients": trained * (2 if micro_batches > 1 else 1),  # of this micro-batch, and their sum
        "moments": _moment_bytes(model, config) // parameter_shards,
        "activations": activations,
        "logits": 3 * rows * chunk * model.vocab_size * _FLOAT32,
    }


def _moment_bytes(model: ModelConfig, config: TrainConfig) -> int:
    """Returns the bytes of the optimizer's state over all devices."""
    optimizer = make_optimizer(config.optimizer, 1, trained_specs(model, config.lora))
    state = abstract_state(model, optimizer, config.lora).opt_state
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state) if leaf.shape)  # without counters


def _activation_bytes_per_token(model: ModelConfig, config: TrainConfig, T: int, mesh_sizes: dict[str, int]) -> int:
    """Returns what the backward pass needs for one token: what all layers keep, and all of the layer now at work."""
    D, tensor, remat = model.hidden_size, mesh_sizes["tensor"], config.compute.remat
    attention = model.num_heads * model.head_dim // tensor
    projected = ((model.num_heads + 2 * model.num_kv_heads) * model.head_dim + model.up_size) // tensor
    whole_layer = 4 * D + attention + 2 * projected  # norms, projections before and after rotation or activation
    kept = {
        "none": D + whole_layer,
        "full": D,
        "dots": 3 * D + projected,
        "save_feed_forward": D + attention + model.up_size // tensor,
        "save_attention": D + attention,
        "offload": 0,
    }
    numbers = model.num_layers * kept[remat] + (0 if remat == "none" else whole_layer)
    shape = AttentionShape.of(model, T, config.compute.dtype, mesh_sizes["context"])
    kernel = choose_attention(config.compute.attention, shape).name
    squares = {"reference": model.num_layers if remat == "none" else 1, "xla": 0.5}.get(kernel, 0)  # of scores, at once
    scores = int(squares * model.num_heads * T // tensor)
    return numbers * _dtype_bytes(config) + scores * (_FLOAT32 + _dtype_bytes(config))


def _dtype_bytes(config: TrainConfig) -> int:
    return {"float32": 4, "bfloat16": 2}[config.compute.dtype]
