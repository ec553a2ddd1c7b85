"""Prints prefill and decode speed of the sampler for a model at several batch sizes, and writes them as JSON.

    python benchmarks/sample.py runs/models/smollm2-135m-instruct/model --batch-sizes 1 4 16
    python benchmarks/sample.py configs/model/tinyllama-1.1b.yaml --dtype bfloat16 --batch-sizes 1 8 64

The model is a checkpoint's, a Hugging Face config.json's or a shape of configs/model; weights and prompts are random,
since speed does not depend on them, and no row ends early, so every batch does the same work. The first round compiles
and is not counted; of the others the fastest is shown, since anything else that runs on the machine only ever slows it
down. The load average shown beside the table tells whether anything did.

Decoding is set beside its floor: a step must read every weight and what the cache holds, at the speed at which this
device copies a large array in the same run.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params
from jaxwiz.plan.command import read_model
from jaxwiz.sample.engine import Engine, Request

RESULTS = Path(__file__).parent / "results" / "sample.json"
NEVER = -2  # an end token that no model makes
COPIED_BYTES = 1 << 30


class NoText:
    """Stands in for a tokenizer: without stop strings the engine only asks it for the answers' texts."""

    pad_id = 0

    def decode(self, ids: list[int], continues: bool = False) -> str:
        return ""


def copy_bytes_per_s() -> float:
    """Returns the best speed of reading and writing a large array on the first device, counting both."""
    array = jnp.zeros(COPIED_BYTES // 4, jnp.float32)
    add = jax.jit(lambda array: array + 1)
    jax.block_until_ready(add(array))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(add(array))
        seconds.append(time.perf_counter() - began)
    return 2 * COPIED_BYTES / min(seconds)


def measure(engine: Engine, options: argparse.Namespace) -> dict[str, float]:
    """Returns seconds of the first round, and prefill, decode and overall tokens/s of the fastest of the others."""
    random = np.random.default_rng(0)
    rows, new_tokens = engine.batch_size, options.new_tokens
    prompts = random.integers(0, engine.config.vocab_size, (rows, options.prompt_tokens)).tolist()
    requests = [Request(prompt, new_tokens) for prompt in prompts]
    times = []
    for _ in range(options.rounds + 1):
        marks = [time.perf_counter()]
        engine.generate(requests, lambda *_: marks.append(time.perf_counter()))  # noqa: B023 - called at once
        times.append((marks[1] - marks[0], marks[-1] - marks[1]))
    prefill_s = min(prefill for prefill, _ in times[1:])
    decode_s = min(decode for _, decode in times[1:])
    return {
        "first_round_s": round(sum(times[0]), 2),
        "prefill_tokens_per_s": round(rows * options.prompt_tokens / prefill_s, 1),
        "decode_tokens_per_s": round(rows * (new_tokens - 1) / decode_s, 1),
        "new_tokens_per_s": round(rows * new_tokens / min(sum(pair) for pair in times[1:]), 1),
        "decode_steps_per_s": round((new_tokens - 1) / decode_s, 2),
    }


def floor_bytes(model: LlamaConfig, weight_bytes: int, rows: int, options: argparse.Namespace) -> float:
    """Returns what a decode step must read on average: each weight once, and each row's keys and values so far."""
    context = options.prompt_tokens + options.new_tokens / 2
    item = jnp.dtype(options.dtype).itemsize
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * item * context
    embedding = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size * item  # only looked up
    return weight_bytes - embedding + rows * cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint folder, a config.json, or a shape of configs/model")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()

    model = read_model(options.model)
    dtype = jnp.dtype(options.dtype)
    load_before = os.getloadavg()[0]
    params = jax.jit(lambda key: jax.tree.map(lambda leaf: leaf.astype(dtype), init_params(model, key)))(
        jax.random.key(0)
    )
    weight_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    copied = copy_bytes_per_s()
    batches = {}
    for rows in options.batch_sizes:
        engine = Engine(params, model, NoText(), batch_size=rows, end_ids=(NEVER,), compute_dtype=dtype)
        found = measure(engine, options)
        floor_steps = copied / floor_bytes(model, weight_bytes, rows, options)
        batches[rows] = {**found, "of_floor": round(found["decode_steps_per_s"] / floor_steps, 3)}

    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "model": options.model.stem,
        "weights_gb": round(weight_bytes / 1e9, 3),
        "copy_gb_per_s": round(copied / 1e9, 1),
        "dtype": options.dtype,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "batches": batches,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def show(result: dict[str, Any]) -> None:
    title = (
        f"{result['prompt_tokens']} + {result['new_tokens']} tokens, {result['weights_gb']} GB of weights, "
        f"{result['dtype']}, {result['device']} that copies {result['copy_gb_per_s']} GB/s "
        f"(load {result['load_average_before']})"
    )
    columns = ("first round, s", "prefill, tokens/s", "decode, tokens/s", "new tokens/s", "steps/s", "of the floor")
    table = Table("batch", *columns, title=title)
    for rows, found in result["batches"].items():
        table.add_row(str(rows), *(str(value) for value in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
