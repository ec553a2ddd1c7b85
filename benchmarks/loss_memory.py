"""Prints the memory that the loss with its gradient needs, chunked (`train/loss.py`) and plain, and writes it as JSON.

    python benchmarks/loss_memory.py
    python benchmarks/loss_memory.py --rows 4 --length 512 --vocabulary 49152 --width 576

The plain loss holds the logits [B, T, V] in float32. Both are compiled for the first device and never run: the figures
are the compiler's own (`memory_analysis`), temporary buffers beside arguments and results. Arguments and results are
the same for both: hidden states, head, and their gradients.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.loss import next_token_loss

RESULTS = Path(__file__).parent / "results" / "loss_memory.json"
VOCABULARIES = (32_000, 49_152, 128_256)  # Llama 2, SmolLM2, Llama 3

Loss = Callable[..., tuple[jax.Array, jax.Array]]


def plain_loss(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, bears_loss: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns what `next_token_loss` does, from the logits of all positions at once."""
    logits = jnp.einsum("BTD,DV->BTV", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(bears_loss, picked, 0.0)), jnp.sum(bears_loss, dtype=jnp.int32)


def temporary_bytes(loss: Loss, options: argparse.Namespace, vocabulary: int) -> int:
    B, T, D = options.rows, options.length, options.width
    shapes = (
        jax.ShapeDtypeStruct((B, T, D), options.dtype),
        jax.ShapeDtypeStruct((D, vocabulary), jnp.float32),
        jax.ShapeDtypeStruct((B, T), jnp.int32),
        jax.ShapeDtypeStruct((B, T), bool),
    )
    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return step.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096, help="D")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=VOCABULARIES)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--loss-chunk", type=int, default=ComputeConfig().loss_chunk_positions)
    options = parser.parse_args()

    chunked = functools.partial(next_token_loss, chunk_positions=options.loss_chunk)
    lines = []
    for vocabulary in options.vocabulary:
        plain, ours = (temporary_bytes(loss, options, vocabulary) for loss in (plain_loss, chunked))
        logits = options.rows * options.length * vocabulary * 4
        lines.append({"vocabulary": vocabulary, "logits": logits, "plain": plain, "chunked": ours})
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        **vars(options),
        "temporary_bytes": lines,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    title = f"loss and gradient of {options.rows} x {options.length} tokens, D = {options.width}, {options.dtype}"
    table = Table("V", "logits, GiB", "plain, GiB", "chunked, GiB", "plain / chunked", title=title)
    for line in lines:
        sizes = (f"{line[name] / 2**30:.2f}" for name in ("logits", "plain", "chunked"))
        table.add_row(f"{line['vocabulary']:,}", *sizes, f"{line['plain'] / line['chunked']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
