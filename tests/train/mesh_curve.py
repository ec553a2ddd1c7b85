"""The loss curve of one small training run on whatever mesh it is given: the same on all of them.

Everything follows from seeds, arrays are placed by callback, so each process of a job may call `loss_curve` with the
mesh of all its devices. As a program it prints {name of mesh: curve} for the meshes named, on the devices present:

    NPROC=64 XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.train.mesh_curve one "fsdp 8"
"""

import json
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import Params, init_params
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import Adafactor, ComputeConfig, Muon, OptimizerConfig
from jaxwiz.train.loss import CROSS_ENTROPY, Objective
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import first_state, state_shardings, trained_specs
from jaxwiz.train.step import make_train_step
from tests.train.tiny import packed_row, random_examples, stack

STEPS = 20
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup_steps=2)
COMPUTE = ComputeConfig(loss_chunk_positions=16)
ROWS, LENGTH = 16, 64
# Every axis divides by 8 where a mesh of eight devices may split it so; the last 8 tokens never occur.
MODEL = LlamaConfig(
    vocab_size=392, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=8, num_kv_heads=8, head_dim=8
)
MESHES = {
    "fsdp 8": MeshConfig(fsdp=8),
    "tensor 8": MeshConfig(fsdp=1, tensor=8),
    "tensor 4 x fsdp 2": MeshConfig(fsdp=2, tensor=4),
    "data 2 x fsdp 4": MeshConfig(data=2, fsdp=4),
    "context 2 x fsdp 4": MeshConfig(context=2, fsdp=4),
    "slice 2 x fsdp 4": MeshConfig(slice=2, fsdp=4),
    "context 4 x tensor 2": MeshConfig(context=4, fsdp=1, tensor=2),
}


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"lora": LoraConfig(rank=4), "optimizer_config": OptimizerConfig(learning_rate=2e-2)},
    "adafactor": {"optimizer_config": OptimizerConfig(algorithm=Adafactor(momentum=0.9), learning_rate=3e-2)},
    "muon": {"optimizer_config": OptimizerConfig(algorithm=Muon(), learning_rate=3e-3, weight_decay=0.1)},
    "z-loss and smoothing": {"objective": Objective(z_loss=1e-2, label_smoothing=0.1, vocab_size=384)},
}


def loss_curve(
    mesh: Mesh,
    steps: int = STEPS,
    optimizer_config: OptimizerConfig = OPTIMIZER,
    lora: LoraConfig | None = None,
    objective: Objective = CROSS_ENTROPY,
) -> list[float]:
    """Returns the loss of each step, in two micro-batches of unevenly packed rows."""
    optimizer = make_optimizer(optimizer_config, steps, trained_specs(MODEL, lora))
    shardings = state_shardings(MODEL, optimizer, mesh, lora)
    state = jax.jit(lambda: first_state(initial_params(), MODEL, optimizer, lora, 0), out_shardings=shardings)()
    schedule = learning_rate_schedule(optimizer_config, steps)
    step = make_train_step(MODEL, COMPUTE, 2, optimizer, schedule, shardings, mesh, lora, objective=objective)
    losses = []
    for number in range(steps):
        batch = {name: _placed(array, mesh) for name, array in host_batch(number % 2).items()}
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses


def initial_params() -> Params:
    """Random parameters, large enough that losses differ clearly from token to token."""
    return jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 2 else leaf, init_params(MODEL, jax.random.key(0)))


def host_batch(step: int) -> dict[str, np.ndarray]:
    """The rows of a step: in each, examples of other lengths and prompts, and some padding."""
    random = np.random.default_rng(step)
    rows = []
    for row in range(ROWS):
        lengths = random.integers(4, 30, size=3)
        examples = [(int(length), int(random.integers(1, length))) for length in lengths if length > 4]
        rows.append(packed_row(_cut(random_examples(1000 * step + row, examples)), LENGTH))
    return stack(rows)


def _cut(examples: list) -> list:
    kept, total = [], 0
    for tokens, prompt in examples:
        total += len(tokens)
        if total <= LENGTH:
            kept.append((tokens, prompt))
    return kept


def _placed(array: np.ndarray, mesh: Mesh) -> jax.Array:
    return jax.make_array_from_callback(array.shape, batch_sharding(mesh), lambda index: array[index])


def main(arguments: list[str]) -> None:
    variant = "plain"
    if arguments[0].startswith("--variant="):
        variant, arguments = arguments[0].removeprefix("--variant="), arguments[1:]
    curves = {}
    for name in arguments:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1]) if name == "one" else make_mesh(MESHES[name])
        curves[name] = loss_curve(mesh, **VARIANTS[variant])
    print(json.dumps(curves))


if __name__ == "__main__":
    main(sys.argv[1:])
