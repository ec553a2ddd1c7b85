"""Prints the speed of the real train step for a model's shape on the devices present, and writes it as JSON.

    python benchmarks/train.py runs/models/smollm2-135m-instruct/model --rows 4 --length 512
    python benchmarks/train.py configs/model/codellama-python-7b.yaml --rows 8 --dtype bfloat16 --remat full
    python benchmarks/train.py configs/model/llama-wide.yaml --fit-layers --attention cudnn pallas xla

The model is a checkpoint, a Hugging Face config.json, or a shape of configs/model; with --fit-layers it gets as many
layers as the device's memory holds under full AdamW. Weights and tokens are random: speed does not depend on them.
Rows are packed as an instruction set is, uneven examples and 2% padding, each example with a prompt without
loss; real tokens and those that bear loss are counted apart. Compilation and the first step (it touches all memory for
the first time) are timed apart; of the others the fastest counts, since anything else that runs on the machine only
ever slows it down. FLOPs are those of real tokens. They are set beside the data sheet's peak, if it is known, and
beside a plain matrix product measured in the same run.
"""

import argparse
import dataclasses
import json
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.files import UserError
from jaxwiz.model.attention_kernels import KERNELS
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.flops import device_peak_flops
from jaxwiz.model.params import count_params, init_params, param_specs
from jaxwiz.model.remat import POLICIES
from jaxwiz.plan.command import read_model
from jaxwiz.sharding.devices import device_memory_bytes
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import ComputeConfig, OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.speed import count_work, measured_matmul_flops_per_s, work_of
from jaxwiz.train.state import new_state, state_shardings
from jaxwiz.train.step import make_train_step

RESULTS = Path(__file__).parent / "results" / "train.json"
FILL = 0.98  # of a row is tokens; what the data stage reaches
STATE_BYTES = 16  # of a parameter: itself, two moments, its gradient
USABLE_SHARE = 0.95  # of a device's memory


def packed_batch(model: LlamaConfig, rows: int, length: int, prompt_share: float) -> dict[str, np.ndarray]:
    """Returns int32 [rows, length]: rows filled as packing fills them, `prompt_share` of each example without loss.

    Examples are as long as those of an instruction set with code: log-normal, 300 tokens in the middle.
    """
    random = np.random.default_rng(0)
    real = round(FILL * length)
    segments, positions, bears_loss = (np.zeros((rows, length), np.int32) for _ in range(3))
    for row in range(rows):
        begin, number = 0, 1
        while begin < real:
            end = min(real, begin + max(8, int(random.lognormal(math.log(300), 0.7))))
            segments[row, begin:end] = number
            positions[row, begin:end] = np.arange(end - begin)
            bears_loss[row, begin + max(1, round(prompt_share * (end - begin))) : end] = 1
            begin, number = end, number + 1
    tokens = random.integers(0, model.vocab_size, (rows, length), dtype=np.int32)
    return {"tokens": tokens, "loss_mask": bears_loss, "segment_ids": segments, "positions": positions}


class Measurement:
    """The train step of a model, ready to be compiled with one attention kernel or another."""

    def __init__(self, model: LlamaConfig, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        self.mesh = make_mesh(MeshConfig())
        self.optimizer = make_optimizer(OptimizerConfig(), options.steps, param_specs(model))
        self.shardings = state_shardings(model, self.optimizer, self.mesh)
        arrays = packed_batch(model, options.rows, options.length, options.prompt_share)
        self.batch = jax.device_put(arrays, batch_sharding(self.mesh))

    def compile(self, attention: str) -> jax.stages.Compiled:
        options = self.options
        compute = ComputeConfig(
            dtype=options.dtype, attention=attention, remat=options.remat, loss_chunk_positions=options.loss_chunk
        )
        schedule = learning_rate_schedule(OptimizerConfig(), options.steps)
        step = make_train_step(
            self.model, compute, options.micro_batches, self.optimizer, schedule, self.shardings, self.mesh
        )
        return step.lower(jax.eval_shape(self._begin, jax.random.key(0)), self.batch).compile()

    def run(self, attention: str) -> dict[str, Any]:
        """Returns compile time, step times and tokens/s, or why this kernel cannot."""
        began = time.perf_counter()
        try:
            compiled = self.compile(attention)
        except UserError as error:
            return {"attention": attention, "refused": str(error)}
        compile_s = time.perf_counter() - began
        state = jax.jit(self._begin, out_shardings=self.shardings)(jax.random.key(0))
        seconds = []
        for _ in range(self.options.steps + 1):
            began = time.perf_counter()
            state, metrics = compiled(state, self.batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - began)
        loss, loss_tokens = float(metrics["loss"]), int(metrics["loss_tokens"])
        if not math.isfinite(loss):
            raise SystemExit(f"{attention}: loss = {loss}: the step is broken, so its speed means nothing")
        work, step_s = work_of(count_work(self.batch), self.model), min(seconds[1:])
        memory = compiled.memory_analysis()
        return {
            "attention": attention,
            "compile_s": round(compile_s, 2),
            "first_step_s": round(seconds[0], 2),
            "step_s": round(step_s, 4),
            "tokens_per_s": round(self.options.rows * self.options.length / step_s, 1),
            "real_tokens_per_s": round(work.tokens / step_s, 1),
            "loss_tokens_per_s": round(loss_tokens / step_s, 1),
            "model_gflops_per_s": round(work.flops / step_s / 1e9, 1),
            "compiled_memory_gib": round((memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30, 2),
        }

    def _begin(self, key: jax.Array) -> Any:
        return new_state(init_params(self.model, key), self.optimizer)


def with_fitting_layers(model: LlamaConfig, options: argparse.Namespace) -> LlamaConfig:
    """Returns the model with as many layers as its compiled step has room for on a device."""
    room = USABLE_SHARE * device_memory_bytes()
    one, two = (count_params(dataclasses.replace(model, num_layers=layers)) for layers in (1, 2))
    layers = int((room / STATE_BYTES - one) / (two - one)) + 1
    while layers > 0:
        candidate = dataclasses.replace(model, num_layers=layers)
        memory = Measurement(candidate, options).compile(options.attention[0]).memory_analysis()
        missing = memory.temp_size_in_bytes + memory.argument_size_in_bytes - room
        if missing <= 0:
            return candidate
        layers -= max(1, math.ceil(missing / (STATE_BYTES * (two - one))))
    raise SystemExit("not even one layer fits; give fewer --rows, or --micro-batches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint folder, a config.json, or a shape of configs/model")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--attention", nargs="+", choices=["auto", *KERNELS], default=["auto"])
    parser.add_argument("--remat", choices=list(POLICIES), default="none")
    parser.add_argument("--loss-chunk", type=int, default=128, help="positions whose logits exist at once")
    parser.add_argument("--prompt-share", type=float, default=0.4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--fit-layers", action="store_true", help="as many layers as the device's memory holds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()

    load_before = os.getloadavg()[0]
    model = read_model(options.model)
    if options.fit_layers:
        model = with_fitting_layers(model, options)
    device = jax.devices()[0]
    cube = 2048 if device.platform == "cpu" else 8192
    matmul = measured_matmul_flops_per_s(cube, options.dtype)
    measurement = Measurement(model, options)
    lines = [measurement.run(attention) for attention in options.attention]
    sheet = device_peak_flops(device.device_kind)
    for line in (line for line in lines if "refused" not in line):
        flops_per_s = line["model_gflops_per_s"] * 1e9 / jax.device_count()
        line["of_measured_matmul"] = round(flops_per_s / matmul, 4)
        line["mfu"] = None if sheet is None else round(flops_per_s / sheet, 4)
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "model": options.model.stem,
        "parameters": count_params(model),
        "layers": model.num_layers,
        **{name: value for name, value in vars(options).items() if name not in ("model", "attention", "out")},
        "matmul": f"{cube}-cube, {options.dtype}",
        "matmul_gflops_per_s": round(matmul / 1e9, 1),
        "peak_host_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "steps_by_attention": lines,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def show(result: dict[str, Any]) -> None:
    title = (
        f"train step, {result['parameters']:,} parameters, {result['rows']} x {result['length']}, {result['dtype']}, "
        f"{result['devices']} x {result['device']} (load {result['load_average_before']}, "
        f"{result['matmul']} product {result['matmul_gflops_per_s']:,.0f} GFLOP/s)"
    )
    lines = result["steps_by_attention"]
    measures = max(lines, key=len)
    table = Table("measure", *(line["attention"] for line in lines), title=title)
    for name in (name for name in measures if name != "attention"):
        table.add_row(name, *(str(line.get(name, "")) for line in lines))
    for line in (line for line in lines if "refused" in line):
        table.caption = f"{table.caption or ''}{line['attention']}: {line['refused']}\n"
    Console().print(table)


if __name__ == "__main__":
    main()
