"""Prints prefill and decode speed of the sampler for a checkpoint at several batch sizes, and writes them as JSON.

    python benchmarks/sample.py runs/models/smollm2-135m-instruct/model --batch-sizes 1 4 16

Prompts are random ids of one length and no row ends early, so every batch does the same work. The first round compiles
and is not counted; of the others the fastest is shown, since anything else that runs on the machine only ever slows it
down. The load average shown beside the table tells whether anything did.
"""

import argparse
import json
import os
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.checkpoint.weights import load_model_config, load_weights, tokenizer_folder
from jaxwiz.sample.engine import Engine, Request
from jaxwiz.text.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "sample.json"
NEVER = -2  # an end token that no model makes


def measure(engine: Engine, prompt_tokens: int, new_tokens: int, rounds: int) -> dict[str, float]:
    """Returns seconds of the first round, and prefill, decode and overall tokens/s of the fastest of the others."""
    random = np.random.default_rng(0)
    prompts = random.integers(0, engine.config.vocab_size, (engine.batch_size, prompt_tokens)).tolist()
    requests = [Request(prompt, new_tokens) for prompt in prompts]
    times = []
    for _ in range(rounds + 1):
        marks = [time.perf_counter()]
        engine.generate(requests, lambda *_: marks.append(time.perf_counter()))  # noqa: B023 - called at once
        times.append((marks[1] - marks[0], marks[-1] - marks[1]))
    prefill_s = min(prefill for prefill, _ in times[1:])
    decode_s = min(decode for _, decode in times[1:])
    rows = engine.batch_size
    return {
        "first_round_s": round(sum(times[0]), 2),
        "prefill_tokens_per_s": round(rows * prompt_tokens / prefill_s, 1),
        "decode_tokens_per_s": round(rows * (new_tokens - 1) / decode_s, 1),
        "new_tokens_per_s": round(rows * new_tokens / min(sum(pair) for pair in times[1:]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()

    config = load_model_config(options.checkpoint)
    params = load_weights(options.checkpoint, dtype=jax.numpy.dtype(options.dtype))
    tokenizer = load_tokenizer(tokenizer_folder(options.checkpoint))
    load_before = os.getloadavg()[0]
    batches = {}
    for batch_size in options.batch_sizes:
        engine = Engine(
            params,
            config,
            tokenizer,
            batch_size=batch_size,
            end_ids=(NEVER,),
            compute_dtype=jax.numpy.dtype(options.dtype),
        )
        batches[batch_size] = measure(engine, options.prompt_tokens, options.new_tokens, options.rounds)

    device = jax.devices()[0]
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": device.device_kind,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "dtype": options.dtype,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "batches": batches,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    _print(result)


def _print(result: dict) -> None:
    title = (
        f"{result['prompt_tokens']} + {result['new_tokens']} tokens, {result['dtype']}, {result['device']} "
        f"({result['cpu_count']} cores, load {result['load_average_before']})"
    )
    table = Table("batch", "first round, s", "prefill, tokens/s", "decode, tokens/s", "new tokens/s", title=title)
    for batch_size, row in result["batches"].items():
        table.add_row(str(batch_size), *(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
