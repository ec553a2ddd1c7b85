"""Prints how fast examples are encoded and packed, beside the tokenizers library's own `encode_batch` of their texts.

    python benchmarks/data_encode.py runs/models/smollm2-135m-instruct/model code_alpaca.json

Ours is what the data stage does with rows in memory: template, tokens and loss flags, packing, finished rows of T
tokens. Theirs is `encode_batch` alone, of whole examples as text, in one call: no mask, no arrays, not even ids in
Python. Both may use all cores. The rounds take turns, and of each the fastest counts, since anything else that runs on
the machine only ever slows it down; the ratio by processor time hardly depends on that at all. The source is repeated
with a number in each instruction, so no text comes twice.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.data.encode import Example, encode_rows
from jaxwiz.data.pack import PackedExamples, plan_packing
from jaxwiz.data.sources import Row, read_source
from jaxwiz.text.pieces import text_of
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import load_tokenizer

RESULTS = Path(__file__).parent / "results" / "data_encode.json"


def measure(folder: Path, source: Path, template_name: str, rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Returns the speeds of both, in tokens of text a second, and their ratios.

    Args:
      folder: of a tokenizer.json, or a checkpoint with one.
      source: examples to encode, repeated as needed.
      template_name: the layout.
      rows: examples of a round.
      length: T of the packed rows.
      rounds: of each, in turn.
    """
    tokenizer = load_tokenizer(folder)
    template = load_template(template_name, tokenizer)
    examples = _examples(source, rows)
    texts = [text_of(template.conversation(row.messages)) for row in examples]
    inner = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    library = tokenizers.Tokenizer.from_file(str(inner / "tokenizer.json"))

    def ours() -> int:
        encoded = encode_rows(examples, tokenizer, template, length, "drop")
        kept = [item for item in encoded if isinstance(item, Example)]
        plan = plan_packing([len(example.tokens) for example in kept], length)
        packed = PackedExamples(
            tokens=np.concatenate([kept[member].tokens for members in plan for member in members]),
            trained=np.concatenate([kept[member].trained for members in plan for member in members]),
            lengths=np.array([len(kept[member].tokens) for members in plan for member in members], np.int32),
            per_row=np.array([len(members) for members in plan], np.int32),
        )
        return sum(int(np.count_nonzero(row.segment_ids)) for row in packed.rows(length, tokenizer.pad_id))

    def theirs() -> int:
        return sum(len(encoding) for encoding in library.encode_batch(texts, add_special_tokens=False))

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    tokens = {}
    for _ in range(rounds):
        for name, work in (("ours", ours), ("theirs", theirs)):
            began, cpu_began = time.perf_counter(), time.process_time()
            tokens[name] = work()
            seconds[name].append(time.perf_counter() - began)
            cpu_seconds[name].append(time.process_time() - cpu_began)
    speeds = {name: tokens[name] / min(taken) for name, taken in seconds.items()}
    cpu_speeds = {name: tokens[name] / min(taken) for name, taken in cpu_seconds.items()}
    return {
        "source": source.name,
        "tokenizer_vocab_size": tokenizer.vocab_size,
        "template": template_name,
        "examples": rows,
        "tokens": tokens["ours"],
        "encode_and_pack_tokens_per_s": round(speeds["ours"]),
        "encode_batch_tokens_per_s": round(speeds["theirs"]),
        "ratio": round(speeds["ours"] / speeds["theirs"], 3),
        "cpu_ratio": round(cpu_speeds["ours"] / cpu_speeds["theirs"], 3),
    }


def _examples(source: Path, count: int) -> list[Row]:
    usable = [item for item in read_source(source) if isinstance(item, Row)]
    made = []
    for number in range(count):
        row = usable[number % len(usable)]
        messages = list(row.messages)
        place = messages.index(row.question)
        messages[place] = dataclasses.replace(row.question, content=f"{row.question.content} ({number})")
        made.append(dataclasses.replace(row, messages=tuple(messages)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="a checkpoint, or a folder with tokenizer.json")
    parser.add_argument("source", type=Path, help="examples in any form that the data stage reads")
    parser.add_argument("--template", default="wizardcoder")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = measure(
        arguments.tokenizer,
        arguments.source,
        arguments.template,
        arguments.examples,
        arguments.length,
        arguments.rounds,
    )
    table = Table("", "tokens/s", title=f"{found['examples']:,} examples of {found['source']}, {os.cpu_count()} cores")
    table.add_row("jaxwiz: encode + pack", f"{found['encode_and_pack_tokens_per_s']:,}")
    table.add_row("tokenizers: encode_batch", f"{found['encode_batch_tokens_per_s']:,}")
    table.add_row("ratio", f"{found['ratio']:.3f}")
    table.add_row("ratio by processor time", f"{found['cpu_ratio']:.3f}")
    Console().print(table)
    arguments.out.parent.mkdir(exist_ok=True)
    described = {"jaxwiz": jaxwiz.__version__, "tokenizers": tokenizers.__version__, "cores": os.cpu_count(), **found}
    arguments.out.write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
