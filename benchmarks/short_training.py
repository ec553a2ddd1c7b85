"""Trains a small model for a minute on jaxwiz' own seeds, once with each attention kernel, and says whether it learned.

    python benchmarks/short_training.py --steps 120 --attention reference auto

What no timing shows: that the step is right on this device. A byte-level vocabulary is trained on the seeds, they are
encoded and packed as the data stage does, some are held out, and the same model of four layers begins from the same
values for each kernel. Its held-out loss must fall by a quarter at least, and kernels must end together; else
the exit code is 1. Neither a download nor the data stage's file formats are needed.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.data.encode import Example, encode_rows
from jaxwiz.data.pack import build_row, plan_packing
from jaxwiz.data.sources import Row, read_source
from jaxwiz.model.attention_kernels import KERNELS
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import count_params, init_params, param_specs
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer
from jaxwiz.train.config import ComputeConfig, OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import new_state, state_shardings
from jaxwiz.train.step import make_eval_step, make_train_step

RESULTS = Path(__file__).parent / "results" / "short_training.json"
SEEDS = Path(jaxwiz.__file__).parent / "evolve" / "seeds" / "programming.jsonl"
EOS = "<|end|>"
HELD_OUT_ROWS = 8
LARGEST_GAP = 0.05  # nats between the held-out losses of two kernels, in bfloat16
SMALLEST_FALL = 0.25  # of the held-out loss


def train_tokenizer(rows: Sequence[Row], vocab_size: int, folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((message.content for row in rows for message in row.messages), trainer)
    tokenizer.add_special_tokens([EOS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    return load_tokenizer(folder)


def packed_rows(rows: Sequence[Row], tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
    """Returns int32 [rows, length] arrays of all examples, packed."""
    items = encode_rows(rows, tokenizer, load_template("wizardcoder", tokenizer), length, "drop")
    examples = [item for item in items if isinstance(item, Example)]
    packed = []
    for members in plan_packing([len(example.tokens) for example in examples], length):
        tokens, trained = (
            np.concatenate([getattr(examples[member], name) for member in members]) for name in ("tokens", "trained")
        )
        lengths = [len(examples[member].tokens) for member in members]
        packed.append(build_row(tokens, trained, lengths, length, tokenizer.pad_id))
    names = (field.name for field in dataclasses.fields(packed[0]))
    return {name: np.stack([getattr(row, name) for row in packed]).astype(np.int32) for name in names}


def train(
    model: LlamaConfig, attention: str, train_rows: dict[str, np.ndarray], heldout: dict[str, np.ndarray],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Returns the losses before, in between and after."""
    compute = ComputeConfig(dtype=options.dtype, attention=attention, remat="dots")
    config = OptimizerConfig(learning_rate=1e-3, warmup_steps=10)
    mesh = make_mesh(MeshConfig())
    optimizer = make_optimizer(config, options.steps, param_specs(model))
    shardings = state_shardings(model, optimizer, mesh)
    schedule = learning_rate_schedule(config, options.steps)
    step = make_train_step(model, compute, 1, optimizer, schedule, shardings, mesh)
    evaluate = make_eval_step(model, compute, shardings, mesh)
    begin = jax.jit(lambda key: new_state(init_params(model, key), optimizer), out_shardings=shardings)
    state = begin(jax.random.key(0))
    held = jax.device_put(heldout, batch_sharding(mesh))

    def heldout_loss() -> float:
        total, count = evaluate(state.params, state.frozen, held)
        return float(total) / int(count)

    before, losses, began = heldout_loss(), [], time.perf_counter()
    random, rows = np.random.default_rng(0), len(train_rows["tokens"])
    for _ in range(options.steps):
        chosen = random.choice(rows, options.rows, replace=rows < options.rows)
        batch = {name: array[chosen] for name, array in train_rows.items()}
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
        losses.append(metrics["loss"])
    curve = np.asarray(jnp.stack(losses))
    return {
        "attention": attention,
        "heldout_before": round(before, 4),
        "heldout_after": round(heldout_loss(), 4),
        "train_first": round(float(curve[0]), 4),
        "train_last": round(float(curve[-1]), 4),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--attention", nargs="+", choices=["auto", *KERNELS], default=["reference", "auto"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()

    rows = [item for item in read_source(SEEDS) if isinstance(item, Row)]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(rows, 2048, Path(folder))
        arrays = packed_rows(rows, tokenizer, options.length)
    heldout = {name: array[:HELD_OUT_ROWS] for name, array in arrays.items()}
    train_rows = {name: array[HELD_OUT_ROWS:] for name, array in arrays.items()}
    model = LlamaConfig(
        vocab_size=2048, hidden_size=options.width, intermediate_size=options.width * 11 // 4, num_layers=4,
        num_heads=options.width // 64, num_kv_heads=max(1, options.width // 256), head_dim=64,
    )  # fmt: skip
    lines = [train(model, attention, train_rows, heldout, options) for attention in options.attention]
    after = [line["heldout_after"] for line in lines]
    faults = [
        f"{line['attention']}: the held-out loss fell by less than {SMALLEST_FALL:.0%}"
        for line in lines
        if not line["heldout_after"] < (1 - SMALLEST_FALL) * line["heldout_before"]
    ]
    if not max(after) - min(after) <= LARGEST_GAP:
        faults.append(f"held-out losses {after} of the kernels are more than {LARGEST_GAP} apart")
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "parameters": count_params(model),
        **{name: value for name, value in vars(options).items() if name not in ("attention", "out")},
        "runs": lines,
        "faults": faults,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(*lines[0], title=f"{result['parameters']:,} parameters, {options.steps} steps, {result['device']}")
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console().print(table)
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
