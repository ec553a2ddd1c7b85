"""Prints how fast the feed gives packed rows, and how fast examples are encoded and packed, and writes it as JSON.

    python benchmarks/data.py
    python benchmarks/data.py --tokenizer runs/models/smollm2-135m-instruct/model --source code_alpaca.json

A dataset of rows of 2,048 tokens is made first: random ids with the frequencies of words, in examples of 100 to 400
tokens. Measured are the feed's batches on one thread, the same through Grain's threads and onto the devices, and rows
as TFDS decodes them. Tokens count padding, as a train step does. The rounds take turns and of each the fastest counts,
since anything else that runs on the machine only ever slows it down. The aim is 10 million tokens a second: twenty
times what an H100 trains SmolLM2-135M with. With a tokenizer.json and a source, `data_encode.py` is measured too.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.data.feed import Feed
from jaxwiz.data.pack import PackedRow
from jaxwiz.data.shards import Shard, shard_name, write_metadata, write_shard
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.feeding import device_batches

RESULTS = Path(__file__).parent / "results" / "data.json"
AIM_TOKENS_PER_S = 10_000_000
VOCAB_SIZE = 49_152
ROWS_PER_SHARD = 1024


def random_rows(count: int, length: int) -> Iterator[PackedRow]:
    """Yields full rows of examples of 100 to 400 tokens, the second half of each with loss."""
    random = np.random.default_rng(0)
    for _ in range(count):
        ends = np.cumsum(random.integers(100, 400, length // 100 + 1))
        ends = np.append(ends[ends < length], length)
        segments = np.searchsorted(ends, np.arange(length), side="right")
        starts = np.concatenate([[0], ends[:-1]])[segments]
        positions = np.arange(length) - starts
        ids = np.minimum(random.zipf(1.3, length) + random.integers(0, 50, length), VOCAB_SIZE - 1)
        yield PackedRow(
            tokens=ids.astype(np.int32),
            loss_mask=positions >= (ends[segments] - starts) // 2,
            segment_ids=(segments + 1).astype(np.int32),
            positions=positions.astype(np.int32),
        )


def write_rows(folder: Path, rows: int, length: int) -> list[Shard]:
    """Writes a dataset of random rows and returns its shards."""
    folder.mkdir()
    stream, count = random_rows(rows, length), -(-rows // ROWS_PER_SHARD)
    shards = []
    for index in range(count):
        name = shard_name("train", index, count)
        shards.append(write_shard(folder / name, name, itertools.islice(stream, ROWS_PER_SHARD), length))
    write_metadata(folder, {"train": shards}, length)
    return shards


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns tokens a second of each way to read the same batches, and of the feed by processor time."""
    import tensorflow_datasets as tfds

    with tempfile.TemporaryDirectory(prefix="jaxwiz-benchmark-") as temporary:
        folder = Path(temporary) / "dataset"
        shards = write_rows(folder, options.rows, options.length)
        feed = Feed(folder, "train", options.batch, seed=0)
        sharding = batch_sharding(make_mesh(MeshConfig()))
        source = tfds.builder_from_directory(folder).as_data_source("train")
        places = np.random.default_rng(0).permutation(options.rows).tolist()
        steps = options.rows // options.batch

        def one_thread() -> None:
            for step in range(steps):
                feed.batch(step)

        def onto_devices() -> None:
            with device_batches(feed, sharding, 0, steps, VOCAB_SIZE) as batches:
                for batch in batches:
                    jax.block_until_ready(batch)

        def by_tfds() -> None:
            for place in places[: steps * options.batch]:
                source[place]

        ways: dict[str, Callable[[], None]] = {
            "feed_one_thread": one_thread,
            "feed_onto_devices": onto_devices,
            "tfds_decoding": by_tfds,
        }
        tokens = steps * options.batch * options.length
        wall = dict.fromkeys(ways, 0.0)
        cpu = dict.fromkeys(ways, 0.0)
        for _ in range(options.rounds):
            for name, way in ways.items():
                began, began_cpu = time.perf_counter(), time.process_time()
                way()
                wall[name] = max(wall[name], tokens / (time.perf_counter() - began))
                cpu[name] = max(cpu[name], tokens / (time.process_time() - began_cpu))
    return {
        **{f"{name}_tokens_per_s": round(speed) for name, speed in wall.items()},
        **{f"{name}_tokens_per_cpu_s": round(speed) for name, speed in cpu.items()},
        "bytes_per_row": round(sum(shard.row_bytes for shard in shards) / options.rows),
        "times_the_aim": round(wall["feed_onto_devices"] / AIM_TOKENS_PER_S, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer.json: measure encoding, too")
    parser.add_argument("--source", type=Path, help="instructions to encode")
    parser.add_argument("--template", default="wizardcoder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    result = {
        "jaxwiz": jaxwiz.__version__,
        "cpu_count": os.cpu_count(),
        "load_average_before": round(load_before, 2),
        "rows": options.rows,
        "length": options.length,
        "batch": options.batch,
        "feed": measure(options),
    }
    if options.tokenizer and options.source:
        import data_encode

        result["encode_and_pack"] = data_encode.measure(
            options.tokenizer, options.source, options.template, 20_000, options.length, options.rounds
        )
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    table = Table("measure", "value", title=f"data, {os.cpu_count()} cores, load {load_before:.2f}")
    for part in ("feed", "encode_and_pack"):
        for name, value in result.get(part, {}).items():
            table.add_row(name, f"{value:,}" if isinstance(value, int | float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
