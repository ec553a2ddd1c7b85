"""Prints time and error of the attention kernels that run on the present device, side by side, and writes them as JSON.

    python benchmarks/attention.py
    python benchmarks/attention.py --rows 8 --length 2048 --heads 32 --kv-heads 8 --head-dim 128 --dtype bfloat16

Rows are packed as the start-up check packs them: uneven examples, padding at the end. Kernels take turns in every round
and the fastest round of each counts, since anything else that runs on the machine only ever slows one down. The error
is that of the start-up check, the largest of output and gradients. "cudnn" and "pallas" need an NVIDIA GPU, "splash" a
TPU; a kernel that cannot run here is listed with its reason.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.model.attention import PackedAttention
from jaxwiz.model.attention_check import packed_segments, require_attention
from jaxwiz.model.attention_kernels import KERNELS, AttentionShape, choose_attention
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

RESULTS = Path(__file__).parent / "results" / "attention.json"


def compiled(run: PackedAttention, inputs: tuple[jax.Array, ...]) -> dict[str, Any]:
    """Returns {"forward", "both": functions without arguments, "temporary_bytes": of the latter}."""

    def forward_and_backward(
        q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, out_gradient: jax.Array
    ) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(lambda q, k, v: run(q, k, v, segment_ids), q, k, v)
        return (out, *backward(out_gradient))

    forward = jax.jit(run).lower(*inputs[:4]).compile()
    both = jax.jit(forward_and_backward).lower(*inputs).compile()
    return {
        "forward": lambda: forward(*inputs[:4]),
        "both": lambda: both(*inputs),
        "temporary_bytes": both.memory_analysis().temp_size_in_bytes,
    }


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a line a kernel: times, memory and error, or why it cannot run here."""
    B, T, N, K, H = options.rows, options.length, options.heads, options.kv_heads, options.head_dim
    shape = AttentionShape(T, N, K, H, options.dtype)
    mesh = make_mesh(MeshConfig())
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, out_gradient = (
        jax.random.normal(key, (B, T, heads, H)).astype(options.dtype)
        for key, heads in zip(keys, (N, K, K, N), strict=True)
    )
    inputs = (q, k, v, jnp.asarray(packed_segments(B, T)), out_gradient)
    lines, programs = [], {}
    for name in KERNELS:
        reason = KERNELS[name].refusal(shape, jax.default_backend())
        if reason is not None:
            lines.append({"kernel": name, "refused": reason})
            continue
        errors = require_attention(choose_attention(name, shape, mesh), shape, mesh)
        programs[name] = compiled(KERNELS[name].run, inputs)
        lines.append({"kernel": name, "error": max(errors.largest.values()), "allowed": errors.allowed})
    best: dict[str, dict[str, float]] = {name: {"forward": float("inf"), "both": float("inf")} for name in programs}
    for _ in range(options.rounds + 1):  # one round more than asked for: the first one only touches the memory
        for name, program in programs.items():
            for part, fastest in best[name].items():
                best[name][part] = min(fastest, seconds(program[part]))
    for line in lines:
        if (name := line["kernel"]) in programs:
            line["forward_ms"] = round(best[name]["forward"] * 1e3, 3)
            line["forward_and_backward_ms"] = round(best[name]["both"] * 1e3, 3)
            line["temporary_mib"] = round(programs[name]["temporary_bytes"] / 2**20, 1)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        **{name: value for name, value in vars(options).items() if name != "out"},
        "kernels": measure(options),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    table = Table("kernel", "forward, ms", "with backward, ms", "temporary, MiB", "largest error", title=_title(result))
    for line in result["kernels"]:
        if "refused" in line:
            table.add_row(line["kernel"], "-", "-", "-", line["refused"])
        else:
            times = (f"{line[name]:,.1f}" for name in ("forward_ms", "forward_and_backward_ms", "temporary_mib"))
            table.add_row(line["kernel"], *times, f"{line['error']:.1e} of {line['allowed']:.0e} allowed")
    Console().print(table)


def _title(result: dict[str, Any]) -> str:
    return (
        f"{result['rows']} x {result['length']}, {result['heads']} heads over {result['kv_heads']} of "
        f"{result['head_dim']}, {result['dtype']}, {result['device']} (load {result['load_average_before']})"
    )


if __name__ == "__main__":
    main()
