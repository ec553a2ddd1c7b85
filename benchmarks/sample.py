"""Prints prefill and decode speed of the sampler at several numbers of slots, and writes them as JSON.

    python benchmarks/sample.py runs/models/smollm2-135m-instruct/model --slots 1 16
    python benchmarks/sample.py runs/models/smollm2-135m-instruct/model --slots 1 16 --beside-transformers --humaneval
    python benchmarks/sample.py runs/models/smollm2-135m-instruct/model --slots 1 --beside-llama-cpp FILE.gguf
    python benchmarks/sample.py configs/model/tinyllama-1.1b.yaml --dtype bfloat16 --slots 1 16 64 256

The model is a checkpoint's, a Hugging Face config.json's or a shape of configs/model; others get random weights
since speed does not depend on them. Prompts are random and no answer ends early, so all rounds do the same work. The
first round compiles and is not counted; of the others the fastest is shown, since anything else that runs on the
machine only ever slows it down. The load average beside the table tells whether anything did.

Decoding is set beside its floor: a step must read every weight and what the cache holds, at the speed at which this
device copies a large array in the same run. Prefill is set beside the fastest matrix product of the same run, and the
data sheet's peak if it is known (MFU).

`--beside-transformers` generates the same from the same weights with transformers, round by round in turn, in the same
process (the parity environment has both). `--humaneval` answers all 164 prompts, greedily and up to the template's end:
the engine as slots come free, transformers in static batches of 16, padded on the left. `--samples` asks for so many
answers to one prompt, which is then read once. Beside a single slot, `--beside-llama-cpp` times llama.cpp on a GGUF.
"""

import argparse
import itertools
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
from jaxwiz.checkpoint.weights import load_weights, tokenizer_folder
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.flops import device_peak_flops, forward_flops_per_token
from jaxwiz.model.pages import token_bytes
from jaxwiz.model.params import Params, count_params, init_params
from jaxwiz.plan.command import read_model
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.problems.prompting import instruction
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.pace import ELSEWHERE, ON_CPU
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.requests import Request
from jaxwiz.text.tokenizer import load_tokenizer
from jaxwiz.train.speed import measured_matmul_flops_per_s

RESULTS = Path(__file__).parent / "results" / "sample.json"
COPIED_BYTES = 1 << 30
STATIC_BATCH = 16
REUSED_PROMPT_TOKENS = 1024
HUMANEVAL_NEW_TOKENS = 256
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class NoText:
    """Stands in for a tokenizer where there are no texts."""

    eos_id = pad_id = 0

    def decode(self, ids: list[int], continues: bool = False) -> str:
        return ""


def new_engine(
    params: Params, model: LlamaConfig, options: argparse.Namespace, slots: int, tokenizer: Any = None,
    end_ids: tuple[int, ...] | None = None,
) -> Engine:  # fmt: skip
    return Engine(
        params, model, tokenizer or NoText(), slots=slots, end_ids=end_ids,
        weights_dtype=options.dtype, cache_dtype=options.cache_dtype,
    )  # fmt: skip


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


def floor_bytes(model: LlamaConfig, rows: int, options: argparse.Namespace) -> float:
    """Returns what a decode step must read on average: each weight once, and each row's keys and values so far."""
    embedding = 0 if model.tie_embeddings else model.vocab_size * model.hidden_size  # only looked up
    context = options.prompt_tokens + options.new_tokens / 2
    weights = (count_params(model) - embedding) * ITEM_BYTES[options.dtype]
    return weights + rows * context * token_bytes(model, options.cache_dtype)


def measure(engine: Engine, options: argparse.Namespace, peer: Any) -> dict[str, Any]:
    """Returns seconds of the first round, and speeds of the fastest of the others, the engine's and the peer's."""
    random = np.random.default_rng(0)
    rows, new_tokens = engine.slots, options.new_tokens
    times, peer_seconds = [], []
    for _ in range(options.rounds + 1):  # each with prompts of its own, so that none is found in the cache
        prompts = random.integers(1, engine.config.vocab_size, (rows, options.prompt_tokens)).tolist()
        marks, added = [time.perf_counter()], []

        def mark(tokens: int, _: int, marks: list[float] = marks, added: list[int] = added) -> None:
            marks.append(time.perf_counter())
            added.append(tokens)

        engine.generate([Request(prompt, 1, ignore_end=True) for prompt in prompts], mark)
        prefill = marks[-1] - marks[0]
        began = time.perf_counter()
        engine.generate([Request(prompt[::-1], new_tokens, ignore_end=True) for prompt in prompts], mark)
        times.append((prefill, time.perf_counter() - began))
        if peer is not None:
            peer_seconds.append(peer.seconds(prompts, new_tokens))
    prefill_s = min(prefill for prefill, _ in times[1:])
    whole_s = min(whole for _, whole in times[1:])
    decode_s = max(whole_s - prefill_s, 1e-9)
    found = {
        "first_round_s": round(sum(times[0]), 2),
        "prefill_tokens_per_s": round(rows * options.prompt_tokens / prefill_s, 1),
        "decode_tokens_per_s": round(rows * (new_tokens - 1) / decode_s, 1),
        "decode_steps_per_s": round((new_tokens - 1) / decode_s, 2),
        "new_tokens_per_s": round(rows * new_tokens / whole_s, 1),
    }
    if peer is not None:
        found["transformers_tokens_per_s"] = round(rows * new_tokens / min(peer_seconds[1:]), 1)
        found["times_transformers"] = round(min(peer_seconds[1:]) / whole_s, 2)
    return found


def llama_cpp_speed(llama_cpp: Any, model: LlamaConfig, options: argparse.Namespace) -> float:
    """Returns new tokens a second of the fastest round, the prompt's time included, as in `new_tokens_per_s`."""
    prompts = np.random.default_rng(2).integers(1, model.vocab_size, (options.rounds + 1, options.prompt_tokens))
    return options.new_tokens / min(llama_cpp.seconds(prompt, options.new_tokens) for prompt in prompts.tolist())


def prefix_reuse(params: Params, model: LlamaConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the seconds until all of many answers to one long prompt have begun, and to as many other prompts."""
    engine, random = new_engine(params, model, options, options.samples), np.random.default_rng(1)
    length = min(REUSED_PROMPT_TOKENS, model.context_length - 1)
    engine.reserve([length + 1] * options.samples)
    seconds = {}
    for round_ in range(2):  # the first one compiles
        for name, prompts in (("one_prompt", 1), ("other_prompts", options.samples)):
            asked = random.integers(1, model.vocab_size, (prompts, length)).tolist() * (options.samples // prompts)
            began = time.perf_counter()
            engine.generate([Request(prompt, 1, ignore_end=True) for prompt in asked])
            seconds[name, round_] = time.perf_counter() - began
    return {
        "samples": options.samples,
        "prompt_tokens": length,
        "one_prompt_s": round(seconds["one_prompt", 1], 2),
        "other_prompts_s": round(seconds["other_prompts", 1], 2),
        "times_faster": round(seconds["other_prompts", 1] / seconds["one_prompt", 1], 1),
    }


def humaneval(params: Params, model: LlamaConfig, options: argparse.Namespace, peer: Any) -> dict[str, Any]:
    """Returns the seconds that all prompts take, compilation included and without, and the peer's."""
    tokenizer = load_tokenizer(tokenizer_folder(options.model))
    prompter = Prompter(tokenizer, options.template)
    problems = list(load_benchmark(HumanEvalConfig()).problems.values())[: options.humaneval_tasks]
    prompts = prompter.encode_instructions([instruction(problem, "chat") for problem in problems])
    requests = [Request(prompt, HUMANEVAL_NEW_TOKENS) for prompt in prompts]
    seconds, blocks = [], itertools.count()
    for _ in range(2):  # the second engine finds its programs compiled
        engine = new_engine(params, model, options, STATIC_BATCH, tokenizer, prompter.end_ids)
        began = time.perf_counter()
        answers = engine.generate(requests, lambda *_: next(blocks))
        seconds.append(time.perf_counter() - began)
    tokens = sum(len(answer.tokens) for answer in answers)
    slot_steps = next(blocks) / 2 * STATIC_BATCH * (ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE).steps
    found: dict[str, Any] = {
        "tasks": len(prompts),
        "new_tokens": tokens,
        "seconds": round(seconds[1], 1),
        "seconds_with_compilation": round(seconds[0], 1),
        "tokens_per_s": round(tokens / seconds[1], 1),
        "occupancy": round(tokens / slot_steps, 3),  # of places for a token, those that got one
        "prompt_tokens_shared": round(engine.statistics().shared_tokens / engine.statistics().prompt_tokens, 3),
    }
    if peer is not None:
        began, theirs = time.perf_counter(), []
        for start in range(0, len(prompts), STATIC_BATCH):
            batch = prompts[start : start + STATIC_BATCH]
            theirs += peer.answers(batch, HUMANEVAL_NEW_TOKENS, prompter.end_ids, tokenizer.pad_id)
        found["transformers_seconds"] = round(time.perf_counter() - began, 1)
        found["times_transformers"] = round(found["transformers_seconds"] / seconds[1], 2)
        found["equal_answers"] = sum(list(ours.tokens) == tokens for ours, tokens in zip(answers, theirs, strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint folder, a config.json, or a shape of configs/model")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=list(ITEM_BYTES), default="float32", help="of the weights")
    parser.add_argument("--cache-dtype", choices=list(ITEM_BYTES), default=None, help="default: as wide as --dtype")
    parser.add_argument("--beside-transformers", action="store_true", help="in float32, on this machine's CPU")
    parser.add_argument("--beside-llama-cpp", type=Path, default=None, help="the same model's GGUF")
    parser.add_argument("--samples", type=int, default=None, help="answers to one prompt, beside as many to others")
    parser.add_argument("--humaneval", action="store_true", help="all prompts of the benchmark, too")
    parser.add_argument("--humaneval-tasks", type=int, default=None, help="only the first so many")
    parser.add_argument("--template", default="tokenizer", help="of the HumanEval prompts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()
    options.cache_dtype = options.cache_dtype or ("bfloat16" if options.dtype == "bfloat16" else "float32")

    model = read_model(options.model)
    is_checkpoint = (options.model / "model.json").is_file()
    if options.humaneval and not is_checkpoint:
        parser.error(f"--humaneval: {options.model} is no checkpoint; give one")
    load_before = os.getloadavg()[0]
    stored = jnp.dtype("float32" if options.dtype == "int8" else options.dtype)
    params = load_weights(options.model, dtype=stored) if is_checkpoint else random_params(model, stored)
    peer = None
    if options.beside_transformers:
        from beside_transformers import Transformers

        peer = Transformers(params, model)
    llama_cpp = None
    if options.beside_llama_cpp is not None:
        from beside_llama_cpp import LlamaCpp

        llama_cpp = LlamaCpp(options.beside_llama_cpp, options.prompt_tokens + options.new_tokens)
    copied = copy_bytes_per_s()
    matmul_dtype = "float32" if options.dtype == "float32" else "bfloat16"
    matmul = measured_matmul_flops_per_s(1024 if jax.default_backend() == "cpu" else 8192, matmul_dtype)
    peak = device_peak_flops(jax.devices()[0].device_kind)
    flops = forward_flops_per_token(model, options.prompt_tokens / 2)
    lines = {}
    for slots in options.slots:
        engine = new_engine(params, model, options, slots)
        engine.reserve([options.prompt_tokens + options.new_tokens] * slots)
        found = measure(engine, options, peer)
        if llama_cpp is not None:
            found["llama_cpp_tokens_per_s"] = (
                round(llama_cpp_speed(llama_cpp, model, options), 1) if slots == 1 else None
            )
        prefill_flops = found["prefill_tokens_per_s"] * flops
        found["of_floor"] = round(found["decode_steps_per_s"] * floor_bytes(model, slots, options) / copied, 3)
        found["prefill_of_matmul"] = round(prefill_flops / matmul, 3)
        found["prefill_mfu"] = None if peak is None else round(prefill_flops / peak, 3)
        lines[slots] = found
        print(f"{slots} slots: {found}", flush=True)

    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "model": options.model.stem,
        "copy_gb_per_s": round(copied / 1e9, 1),
        "matmul_gflops_per_s": round(matmul / 1e9, 1),
        "dtype": options.dtype,
        "cache_dtype": options.cache_dtype,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "slots": lines,
        "prefix_reuse": prefix_reuse(params, model, options) if options.samples else None,
        "humaneval": humaneval(params, model, options, peer) if options.humaneval else None,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def random_params(model: LlamaConfig, dtype: jnp.dtype) -> Params:
    cast = jax.jit(lambda key: jax.tree.map(lambda leaf: leaf.astype(dtype), init_params(model, key)))
    return cast(jax.random.key(0))


def show(result: dict[str, Any]) -> None:
    title = (
        f"{result['model']}: {result['prompt_tokens']} + {result['new_tokens']} tokens, weights {result['dtype']}, "
        f"cache {result['cache_dtype']}, {result['device']} that copies {result['copy_gb_per_s']} GB/s and multiplies "
        f"at {result['matmul_gflops_per_s']} GFLOP/s (load {result['load_average_before']})"
    )
    columns = list(next(iter(result["slots"].values())))
    table = Table("slots", *(column.replace("_", " ") for column in columns), title=title)
    for slots, found in result["slots"].items():
        table.add_row(str(slots), *(str(found[column]) for column in columns))
    console = Console()
    console.print(table)
    for name in ("prefix_reuse", "humaneval"):
        if result[name]:
            console.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in result[name].items()))


if __name__ == "__main__":
    main()
