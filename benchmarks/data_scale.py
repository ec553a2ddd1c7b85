"""Prints how much memory and time the data stage takes for many rows, step by step, and writes it as JSON.

    python benchmarks/data_scale.py                      # 2 million rows, without and with exact and near dedup
    python benchmarks/data_scale.py --rows 20000 --only plain

Rows are made up: instructions and answers of words and code drawn by number, 1 in 100 repeated word for word and 1 in
100 nearly. `jaxwiz data` runs in a process of its own, whose resident memory (with that of its children) is looked at
several times a second. A tenth of the rows is run first: what memory grows by per million rows follows from the two.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import jaxwiz

RESULTS = Path(__file__).parent / "results" / "data_scale.json"
LIMIT_BYTES = 3 * 2**30
SECONDS_BETWEEN_LOOKS = 0.2
POINTS_OF_CURVE = 100
CLEANING: dict[str, Any] = {"plain": None, "dedup": {"benchmarks": []}}

NOUNS = ("list", "string", "matrix", "tree", "graph", "queue", "file", "word", "number", "date", "index", "cache")
VERBS = ("sort", "merge", "count", "reverse", "split", "filter", "parse", "encode", "rotate", "search", "flatten")
LINES = (
    "    for {a} in {b}:",
    "        if {a} > {n}:",
    "            {b}.append({a} * {n})",
    "    {b} = [{a} for {a} in {b} if {a} % {n}]",
    "    {b} = sorted({b}, key=lambda {a}: (-{a}, {n}))",
    "    assert len({b}) < {n}, '{b} has more than {n} {a}s'",
    "    return sum({a} for {a} in {b}) - {n}",
)


def synthetic_row(number: int) -> dict[str, str]:
    """Returns row `number` of the source, about 150 tokens of text."""
    kind = number % 100
    source = number - kind if kind in (1, 2) else number
    draw = random.Random(source)
    verb, noun, other = draw.choice(VERBS), draw.choice(NOUNS), draw.choice(NOUNS)
    names = [f"{draw.choice(NOUNS)}_{draw.randrange(1000)}" for _ in range(4)]
    lines = [f"def {verb}_{noun}_{source}({names[0]}, {names[1]}):"]
    for _ in range(draw.randint(2, 14)):
        a, b = draw.sample(names, 2)
        lines.append(draw.choice(LINES).format(a=a, b=b, n=draw.randrange(10_000)))
    if kind == 2:
        lines.append("    # nearly the same")
    instruction = (
        f"Write a function {verb}_{noun}_{source} which can {verb} a {noun} of {draw.randrange(10_000)} "
        f"{other}s, given {names[0]} and {names[1]}, and say what it costs for {draw.randrange(10**6)} of them."
    )
    return {"instruction": instruction, "input": "", "output": "\n".join(lines) + "\n"}


def write_source(path: Path, rows: int) -> None:
    with open(path, "w") as file:
        for number in range(rows):
            file.write(json.dumps(synthetic_row(number)) + "\n")


def train_tokenizer(folder: Path) -> None:
    """Writes a byte-level BPE of 8,192 tokens, trained on the first rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def texts() -> Iterator[str]:
        for number in range(5000):
            yield "\n".join(synthetic_row(number).values())

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>", "add_bos_token": false}\n')


def tree_rss(process: psutil.Process) -> int:
    """Returns the resident bytes of a process and all that it started."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measure(source: Path, rows: int, tokenizer: Path, clean: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Returns time and memory of one run of the stage; `folder` is removed again."""
    folder.mkdir()
    config = {"stage": "data", "out": str(folder / "out"), "sources": [str(source)], "tokenizer": str(tokenizer)}
    settings = {"heldout_share": 0.01, "clean": clean}
    (folder / "config.yaml").write_text(json.dumps({**config, **settings}))
    command = [sys.executable, "-m", "jaxwiz.cli", "data", str(folder / "config.yaml")]
    began = time.monotonic()
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    messages: list[str] = []
    step = ["start"]

    def listen() -> None:
        for line in running.stderr or ():
            messages.append(line)
            title = line.partition(":")[0]
            if title != step[-1] and title.isidentifier():
                step.append(title)

    listener = threading.Thread(target=listen)
    listener.start()
    process = psutil.Process(running.pid)
    curve: list[tuple[float, str, int]] = []
    while running.poll() is None:
        try:
            curve.append((time.monotonic() - began, step[-1], tree_rss(process)))
        except psutil.NoSuchProcess:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    seconds = time.monotonic() - began
    listener.join()
    if running.wait():
        raise SystemExit("".join(messages))
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    shutil.rmtree(folder)
    steps = {name: [point for point in curve if point[1] == name] for name in step}
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
        "tokens": sum(split["tokens"] for split in manifest["splits"].values()),
        "fill": manifest["splits"]["train"]["fill"],
        "left_out": manifest["left_out"],
        "peak_rss": max(rss for _, _, rss in curve),
        "steps": {
            name: {"seconds": round(points[-1][0] - points[0][0], 1), "peak_rss": max(rss for _, _, rss in points)}
            for name, points in steps.items()
            if points
        },
        "rss_curve": [[round(at, 1), name, rss] for at, name, rss in curve[:: max(1, len(curve) // POINTS_OF_CURVE)]],
    }


def print_run(console: Console, name: str, run: dict[str, Any]) -> None:
    title = f"{name}: {run['rows']:,} rows in {run['seconds']:,.0f} s, {run['rows_per_s']:,} rows/s"
    table = Table("step", "seconds", "peak RSS, GiB", title=title)
    for step, facts in run["steps"].items():
        table.add_row(step, f"{facts['seconds']:,.0f}", f"{facts['peak_rss'] / 2**30:.2f}")
    console.print(table)
    for at, step, rss in run["rss_curve"][:: max(1, len(run["rss_curve"]) // 25)]:
        console.print(f"{at:8.0f} s  {rss / 2**30:5.2f} GiB  {'#' * round(rss / 2**30 * 20)}  {step}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, help="for sources and results, several GB; removed again")
    parser.add_argument("--only", choices=[*CLEANING])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()

    console = Console()
    result: dict[str, Any] = {"jaxwiz": jaxwiz.__version__, "cores": psutil.cpu_count(), "runs": {}}
    with tempfile.TemporaryDirectory(prefix="data-scale-", dir=options.folder) as temporary:
        folder = Path(temporary)
        train_tokenizer(folder / "tokenizer")
        for rows in (options.rows // 10, options.rows):
            write_source(folder / f"{rows}.jsonl", rows)
        for name, clean in CLEANING.items():
            if options.only not in (None, name):
                continue
            small, full = (
                measure(folder / f"{rows}.jsonl", rows, folder / "tokenizer", clean, folder / "run")
                for rows in (options.rows // 10, options.rows)
            )
            grown = (full["peak_rss"] - small["peak_rss"]) / (full["rows"] - small["rows"]) * 1e6
            result["runs"][name] = {**full, "peak_rss_of_a_tenth": small["peak_rss"], "bytes_per_million_rows": grown}
            print_run(console, name, full)
            console.print(
                f"peak {full['peak_rss'] / 2**30:.2f} GiB, with a tenth of the rows {small['peak_rss'] / 2**30:.2f}: "
                f"{grown / 2**20:.0f} MiB per million rows"
            )
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    over = [name for name, run in result["runs"].items() if run["peak_rss"] > LIMIT_BYTES]
    if over:
        raise SystemExit(f"more than {LIMIT_BYTES / 2**30:.0f} GiB of memory: {', '.join(over)}")


if __name__ == "__main__":
    main()
