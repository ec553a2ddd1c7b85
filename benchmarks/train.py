"""Prints the speed of the real train step for a model's shape on the devices present, and writes it as JSON.

    python benchmarks/train.py runs/models/smollm2-135m-instruct/model --rows 4 --length 512
    python benchmarks/train.py path/to/config.json --rows 8 --length 2048 --dtype bfloat16 --remat full

Weights and tokens are random: speed does not depend on them. Rows are full, one segment each; the share of prompt
tokens is as in an instruction set, because the loss is computed only where it is borne. Compilation and the first step
(it touches all memory for the first time) are timed apart; of the others the fastest counts, since anything else that
runs on the machine only ever slows it down. MFU is relative to the data sheet's peak, or to a plain matrix product
measured in the same run where there is none.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.checkpoint.weights import load_model_config
from jaxwiz.data.feed import Batch
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import count_params, init_params, param_specs
from jaxwiz.model.remat import POLICIES
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import ComputeConfig, OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.speed import peak_of_devices, work_of
from jaxwiz.train.state import new_state, state_shardings
from jaxwiz.train.step import make_train_step

RESULTS = Path(__file__).parent / "results" / "train.json"


def random_batch(model: LlamaConfig, rows: int, length: int, prompt_share: float) -> Batch:
    """Returns full rows of one segment each, the first `prompt_share` of each without loss."""
    random = np.random.default_rng(0)
    places = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return Batch(
        tokens=random.integers(0, model.vocab_size, (rows, length), dtype=np.int32),
        loss_mask=places >= prompt_share * length,
        segment_ids=np.ones_like(places),
        positions=places,
    )


def measure(model: LlamaConfig, options: argparse.Namespace) -> dict[str, float | str]:
    """Returns compile time, step times, tokens/s, model FLOP/s and MFU of the compiled train step."""
    compute = ComputeConfig(
        dtype=options.dtype,
        attention=options.attention,
        remat=options.remat,
        loss_chunk_positions=options.loss_chunk,
    )
    mesh = make_mesh(MeshConfig())
    optimizer = make_optimizer(OptimizerConfig(), options.steps, param_specs(model))
    shardings = state_shardings(model, optimizer, mesh)
    begin = jax.jit(lambda key: new_state(init_params(model, key), optimizer), out_shardings=shardings)
    state = begin(jax.random.key(0))
    host_batch = random_batch(model, options.rows, options.length, options.prompt_share)
    names = ("tokens", "loss_mask", "segment_ids", "positions")
    batch = {name: jax.device_put(getattr(host_batch, name).astype(np.int32), batch_sharding(mesh)) for name in names}
    schedule = learning_rate_schedule(OptimizerConfig(), options.steps)
    step = make_train_step(model, compute, options.micro_batches, optimizer, schedule, shardings, mesh)
    began = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_s = time.perf_counter() - began
    seconds = []
    for _ in range(options.steps + 1):
        began = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    if not jnp.isfinite(metrics["loss"]):
        raise SystemExit(f"loss = {metrics['loss']}: the step is broken, so its speed means nothing")
    del state
    peak, work, step_s = peak_of_devices(options.dtype), work_of(host_batch, model), min(seconds[1:])
    memory = compiled.memory_analysis()
    return {
        "compile_s": round(compile_s, 2),
        "first_step_s": round(seconds[0], 2),
        "step_s": round(step_s, 3),
        "tokens_per_s": round(work.tokens / step_s, 1),
        "loss_tokens_per_s": round(int(metrics["loss_tokens"]) / step_s, 1),
        "model_flops_per_token": round(work.flops / work.tokens),
        "model_gflops_per_s": round(work.flops / step_s / 1e9, 1),
        "mfu": round(work.flops / step_s / peak.flops_per_s, 4),
        "peak_gflops_per_s": round(peak.flops_per_s / 1e9, 1),
        "peak_source": peak.source,
        "compiled_memory_gib": round((memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30, 2),
        "peak_host_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint folder, or a Hugging Face config.json")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--attention", default="auto", help="a kernel of jaxwiz/model/attention_kernels.py")
    parser.add_argument("--remat", choices=list(POLICIES), default="none")
    parser.add_argument("--loss-chunk", type=int, default=128, help="positions whose logits exist at once")
    parser.add_argument("--prompt-share", type=float, default=0.4)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()

    model = (
        load_model_config(options.model)
        if options.model.is_dir()
        else LlamaConfig.from_hf(json.loads(options.model.read_text()))
    )
    load_before = os.getloadavg()[0]
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "parameters": count_params(model),
        **{name: value for name, value in vars(options).items() if name != "model"},
        **measure(model, options),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    _print(result)


def _print(result: dict) -> None:
    title = (
        f"train step, {result['parameters']:,} parameters, {result['rows']} x {result['length']}, {result['dtype']}, "
        f"{result['devices']} x {result['device']} ({result['cpu_count']} cores, load {result['load_average_before']})"
    )
    table = Table("measure", "value", title=title)
    shown = list(result)[list(result).index("compile_s") :]
    for name in shown:
        table.add_row(name, str(result[name]))
    Console().print(table)


if __name__ == "__main__":
    main()
