"""Prints how much of training asynchronous saves take, for a model's shape on the devices present; writes it as JSON.

    python benchmarks/checkpoints.py configs/model/smollm2-135m.yaml --rows 4 --length 512
    python benchmarks/checkpoints.py --hidden 256 --layers 4 --steps 100          # a small model, a minute on a laptop

The real train step and the real saves, in the loop's order: every `--every` steps the loop waits for the devices to
finish what was dispatched, `save` copies the state off them, and training goes on while it is written and summed.
Blocked is the time that `save` takes, in which the devices have nothing to do. The same steps without saves run first,
in the same process, so that the second figure, how much longer the whole took, has all costs in it: the writing
threads' share of the processor too.
"""

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.checkpoint.record import Retention
from jaxwiz.checkpoint.train_state import TrainCheckpoints
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import count_params, init_params, param_specs
from jaxwiz.plan.command import read_model
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import ComputeConfig, OptimizerConfig
from jaxwiz.train.loop import STEPS_AHEAD
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import TrainState, new_state, state_shardings
from jaxwiz.train.step import make_train_step

RESULTS = Path(__file__).parent / "results" / "checkpoints.json"


@dataclasses.dataclass
class Timing:
    """Seconds of some steps, and of the saves among them."""

    total_s: float
    saving_s: float
    saves: int


def a_model(options: argparse.Namespace) -> LlamaConfig:
    if options.model is not None:
        return read_model(options.model)
    heads = options.hidden // 64
    return LlamaConfig(
        vocab_size=8192,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_layers=options.layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=64,
        max_positions=options.length,
        tie_embeddings=True,
    )


class Run:
    """A model's train step, compiled, and a batch of random tokens that it sees again and again."""

    def __init__(self, model: LlamaConfig, options: argparse.Namespace) -> None:
        mesh, config = make_mesh(MeshConfig(fsdp=jax.device_count())), OptimizerConfig(learning_rate=1e-5)
        optimizer = make_optimizer(config, options.steps, param_specs(model))
        shardings = state_shardings(model, optimizer, mesh)
        compute = ComputeConfig(dtype=options.dtype, remat=options.remat)
        schedule = learning_rate_schedule(config, options.steps)
        step = make_train_step(model, compute, 1, optimizer, schedule, shardings, mesh)
        shape = (options.rows, options.length)
        arrays = {
            "tokens": np.random.default_rng(0).integers(0, model.vocab_size, shape, dtype=np.int32),
            "loss_mask": np.ones(shape, np.int32),
            "segment_ids": np.ones(shape, np.int32),
            "positions": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
        }
        self._batch = jax.device_put(arrays, batch_sharding(mesh))

        def begin(key: jax.Array) -> TrainState:
            return new_state(init_params(model, key), optimizer)

        self.state = jax.jit(begin, out_shardings=shardings)(jax.random.key(0))
        self._step = step.lower(self.state, self._batch).compile()

    def steps(self, count: int, every: int, checkpoints: TrainCheckpoints | None) -> Timing:
        """Returns how long so many steps take, with or without saves; the last save is not waited for."""
        saving_s, saves = 0.0, 0
        unread: list[Any] = []
        began = time.perf_counter()
        for step in range(1, count + 1):
            self.state, metrics = self._step(self.state, self._batch)
            unread.append(metrics)
            while len(unread) > STEPS_AHEAD:
                jax.device_get(unread.pop(0))
            if checkpoints is None or step % every:
                continue
            jax.block_until_ready(self.state)
            unread.clear()
            save_began = time.perf_counter()
            checkpoints.save(step, self.state.to_save())
            saving_s += time.perf_counter() - save_began
            saves += 1
        jax.block_until_ready(self.state)
        return Timing(time.perf_counter() - began, saving_s, saves)


def measure(model: LlamaConfig, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    run = Run(model, options)
    run.steps(2, options.every, None)  # the first steps touch all memory for the first time
    without = run.steps(options.steps, options.every, None)
    checkpoints = TrainCheckpoints(folder / "state", Retention(1))
    run.steps(1, 1, checkpoints)  # Orbax starts its threads
    checkpoints.wait()
    with_saves = run.steps(options.steps, options.every, checkpoints)
    began = time.perf_counter()
    checkpoints.require_saved()
    tail_s = time.perf_counter() - began
    (newest,) = (folder / "state").iterdir()
    size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    checkpoints.close()
    return {
        "state_mib": round(size / 2**20, 1),
        "step_s": round(without.total_s / options.steps, 4),
        "saves": with_saves.saves,
        "blocked_s_each": round(with_saves.saving_s / with_saves.saves, 4),
        "blocked_share": round(with_saves.saving_s / with_saves.total_s, 5),
        "longer_with_saves": round(with_saves.total_s / without.total_s - 1, 5),
        "last_save_written_after_s": round(tail_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a checkpoint, a config.json, or a shape of configs/model")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=50, help="steps between saves")
    parser.add_argument("--folder", type=Path, help="where states are written; by default a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()
    model, load_before = a_model(options), os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="jaxwiz-checkpoints-", dir=options.folder))
    try:
        measured = measure(model, options, folder)
    finally:
        shutil.rmtree(folder)
    device = jax.devices()[0]
    kept = ("rows", "length", "dtype", "remat", "steps", "every")
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "parameters": count_params(model),
        **{name: getattr(options, name) for name in kept},
        **measured,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(title=f"a save every {options.every} steps, {result['parameters']:,} parameters")
    for name in measured:
        table.add_column(name.replace("_", " "))
    table.add_row(*map(str, measured.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
