"""Prints the speed of jaxwiz' train step beside that of transformers and torch on this machine's CPU; JSON as well.

    python benchmarks/train_beside_torch.py runs/models/smollm2-135m-instruct/model --rows 4 --length 512 --rounds 5

Both train the same weights on the same rows with AdamW and clipping, each in a process of its own. They take turns, one
step each, so that whatever else the machine does slows both; the median ratio of such pairs is what counts. First in
float32, then in bfloat16 (torch: autocast; jaxwiz: compute.dtype). If their losses differ, the run ends: speeds of
different computations cannot be compared. Needs the packages of `make test-parity`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "train_beside_torch.json"
SIDES = ("jaxwiz", "torch")
PROMPT_SHARE = 0.4  # of each row bears no loss
LEARNING_RATE = 2e-5
CUBE = 2048  # size of the matrix product that says what the machine can do
WARM_UP = 2  # steps; the first compiles, and both touch all memory for the first time
ALLOWED_LOSS_DIFFERENCE = {"float32": 1e-5, "bfloat16": 5e-3}  # relative; autocast keeps other parts in float32

Step = Callable[[], float]  # one optimizer step; returns its loss


def random_rows(vocab_size: int, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocab_size, (rows, length), dtype=np.int32)


def best_rate(product: Callable[[], Any]) -> float:
    """Returns the best GFLOP/s of a product of two matrices of CUBE x CUBE."""
    product()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - began)
    return 2 * CUBE**3 / min(seconds) / 1e9


def jaxwiz_step(options: argparse.Namespace) -> tuple[Step, dict[str, Any]]:
    import jax
    import jax.numpy as jnp

    from jaxwiz.checkpoint.weights import load_model_config, load_weights
    from jaxwiz.model.params import param_specs
    from jaxwiz.sharding.mesh import MeshConfig, make_mesh
    from jaxwiz.sharding.rules import batch_sharding
    from jaxwiz.train.config import ComputeConfig, OptimizerConfig
    from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
    from jaxwiz.train.state import new_state, state_shardings
    from jaxwiz.train.step import make_train_step

    model = load_model_config(options.checkpoint)
    config = OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant")
    compute = ComputeConfig(dtype=options.dtype, remat=options.remat)
    mesh = make_mesh(MeshConfig())
    optimizer = make_optimizer(config, 1, param_specs(model))
    shardings = state_shardings(model, optimizer, mesh)
    step = make_train_step(model, compute, 1, optimizer, learning_rate_schedule(config, 1), shardings, mesh)
    tokens = random_rows(model.vocab_size, options.rows, options.length)
    places = np.tile(np.arange(options.length, dtype=np.int32), (options.rows, 1))
    arrays = {
        "tokens": tokens,
        "loss_mask": (places >= PROMPT_SHARE * options.length).astype(np.int32),
        "segment_ids": np.ones_like(places),
        "positions": places,
    }
    batch = jax.device_put(arrays, batch_sharding(mesh))
    state = new_state(load_weights(options.checkpoint), optimizer)
    matrix = jnp.ones((CUBE, CUBE), jnp.dtype(options.dtype))
    product = jax.jit(jnp.matmul)
    facts = {"version": jax.__version__, "matmul": best_rate(lambda: product(matrix, matrix).block_until_ready())}

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return run, facts


def torch_step(options: argparse.Namespace) -> tuple[Step, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(options.hf_folder, dtype=torch.float32)
    model.train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    tokens = torch.from_numpy(random_rows(model.config.vocab_size, options.rows, options.length)).long()
    labels = tokens.clone()
    labels[:, np.arange(options.length) < PROMPT_SHARE * options.length] = -100
    matrix = torch.ones(CUBE, CUBE, dtype=getattr(torch, options.dtype))
    facts = {"version": torch.__version__, "matmul": best_rate(lambda: matrix @ matrix)}

    def run() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run, facts


def serve(options: argparse.Namespace) -> None:
    """Makes a step for each line on standard input, and answers with its seconds and loss."""
    step, facts = {"jaxwiz": jaxwiz_step, "torch": torch_step}[options.serve](options)
    print(json.dumps({"matmul_gflops_per_s": round(facts["matmul"], 1), "version": facts["version"]}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        print(json.dumps({"seconds": time.perf_counter() - began, "loss": loss}), flush=True)


class Side:
    """A process that makes steps when told to."""

    def __init__(self, name: str, dtype: str, options: argparse.Namespace, hf_folder: Path) -> None:
        command = [sys.executable, __file__, str(options.checkpoint), "--serve", name, "--dtype", dtype]
        command += ["--rows", str(options.rows), "--length", str(options.length), "--remat", options.remat]
        command += ["--hf-folder", str(hf_folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._answer()

    def step(self) -> dict[str, float]:
        assert self.process.stdin is not None
        print("step", file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended with exit code {self.process.wait()}; its message stands above")
        return json.loads(line)


def compare(dtype: str, options: argparse.Namespace, hf_folder: Path) -> dict[str, Any]:
    """Returns step times of both sides in one dtype, and the median ratio of their tokens/s."""
    sides = {name: Side(name, dtype, options, hf_folder) for name in SIDES}
    turns = [{name: side.step() for name, side in sides.items()} for _ in range(WARM_UP + options.rounds)]
    for side in sides.values():
        side.close()
    for turn in turns:
        difference = abs(turn["jaxwiz"]["loss"] / turn["torch"]["loss"] - 1)
        if not difference <= ALLOWED_LOSS_DIFFERENCE[dtype]:
            raise SystemExit(f"{dtype}: losses {turn} differ by {difference:.1e}: they do not compute the same")
    tokens, timed = options.rows * options.length, turns[WARM_UP:]
    ratios = sorted(turn["torch"]["seconds"] / turn["jaxwiz"]["seconds"] for turn in timed)
    seconds = {name: sorted(turn[name]["seconds"] for turn in timed) for name in SIDES}
    return {
        **{
            name: {
                **side.facts,
                "step_s_fastest": round(seconds[name][0], 3),
                "step_s_median": round(statistics.median(seconds[name]), 3),
                "tokens_per_s_best": round(tokens / seconds[name][0], 1),
                "first_loss": turns[0][name]["loss"],
                "last_loss": turns[-1][name]["loss"],
            }
            for name, side in sides.items()
        },
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of a checkpoint, such as <out>/model of a convert stage")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of steps that are timed")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--remat", default="dots", help="jaxwiz' compute.remat")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--hf-folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        (options.dtype,) = options.dtype
        serve(options)
        return

    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        hf_folder = Path(temporary) / "hf"
        settings = [f"out={hf_folder}", f"source.path={options.checkpoint}"]
        to_hf = HERE.parent / "configs" / "convert" / "checkpoint-to-hf.yaml"
        subprocess.run([sys.executable, "-m", "jaxwiz.cli", "convert", to_hf, *settings], check=True)
        found = {dtype: compare(dtype, options, hf_folder / "model") for dtype in options.dtype}
    result = {
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "rows": options.rows,
        "length": options.length,
        "remat": options.remat,
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
        **found,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    show(result, options)


def show(result: dict[str, Any], options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"train step, {options.rows} x {options.length} tokens, {result['cpu_count']} cores"
    table = Table("dtype", "measure", *SIDES, "jaxwiz / torch", title=f"{title}, load {result['load_average_before']}")
    for dtype in options.dtype:
        of_dtype = result[dtype]
        ratio = f"{of_dtype['ratio_median']} ({of_dtype['ratio_range'][0]} to {of_dtype['ratio_range'][1]})"
        for measure in of_dtype["jaxwiz"]:
            shown = ratio if measure == "tokens_per_s_best" else ""
            table.add_row(dtype, measure, *(str(of_dtype[side][measure]) for side in SIDES), shown)
    Console().print(table)


if __name__ == "__main__":
    main()
