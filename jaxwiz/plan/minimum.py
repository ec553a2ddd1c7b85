"""The least that a step's sharding has to send, by formula, to hold the compiled program's traffic against.

With P bytes of layer and head kernels in the compute dtype, n shards of each (fsdp x context), t tensor shards, r
replicas (slice x data), m micro-batches, L layers and A bytes of one device's activations [B, T, D]:

| what | bytes that each device receives in a step |
|---|---|
| weights gathered, forward and again backward | 2 m (P / t) (n - 1) / n |
| gradients reduced to their shards | m (P / t) (n - 1) / n |
| gradients summed over replicas, in float32, once a step | 2 (G / (n t)) (r - 1) / r, G = 4 bytes a trained parameter |
| activations summed over tensor shards, two forward and two backward a layer | 4 m L 2 A (t - 1) / t |
| keys and values gathered along context, forward and back | m L 4 A (K H / D) (c - 1) |

The embedding's rows are looked up where they lie; that, norm scales and scalars are left out as too small. So is the
recomputation of what tensor shards sum: a policy of remat may keep it.
"""

import jax.numpy as jnp

from jaxwiz.model.flops import matmul_params
from jaxwiz.model.lora_params import count_lora
from jaxwiz.model.params import count_params
from jaxwiz.plan.request import Request

FORMULA = "m (2 gathers + 1 reduction) P/t (n-1)/n + 2 G/(n t) (r-1)/r + 8 m L A (t-1)/t + 4 m L A (KH/D) (c-1)"


def least_bytes(request: Request, mesh: dict[str, int]) -> dict[str, float]:
    """Returns {"weights", "gradients", "replicas", "tensor", "context"}: bytes that each device must receive in a step.

    Args:
      request: the train step.
      mesh: {axis: size}.
    """
    model, config = request.model, request.train
    itemsize = jnp.dtype(config.compute.dtype).itemsize
    shards, tensor = mesh["fsdp"] * mesh["context"], mesh["tensor"]
    replicas, micro_batches = mesh["slice"] * mesh["data"], config.batch.micro_batches
    kernels = matmul_params(model) * itemsize / tensor
    trained = count_params(model) if config.lora is None else count_lora(model, config.lora)
    rows = config.batch.rows / (micro_batches * mesh["slice"] * mesh["data"] * mesh["fsdp"])
    activations = rows * request.length / mesh["context"] * model.hidden_size * itemsize
    others = (shards - 1) / shards
    keys = model.num_kv_heads * model.head_dim / model.hidden_size / tensor
    reduced = kernels if config.lora is None else count_lora(model, config.lora) * itemsize
    return {
        "weights": 2 * micro_batches * kernels * others,
        "gradients": micro_batches * reduced * others,
        "replicas": 2 * trained * 4 / (shards * tensor) * (replicas - 1) / replicas,
        "tensor": 8 * micro_batches * model.num_layers * activations * (tensor - 1) / tensor,
        "context": 4 * micro_batches * model.num_layers * activations * keys * (mesh["context"] - 1),
    }
