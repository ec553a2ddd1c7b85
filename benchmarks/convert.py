"""Prints memory and speed of conversion both ways, beside a plain copy of the same files, and writes them as JSON.

    python benchmarks/convert.py --folder /some/disk              # a model of Code Llama 7B's shape: 40 GB of disk
    python benchmarks/convert.py --folder FOLDER --layers 2      # the same, two layers of it: for a quick look

The model is made here: random, finite bfloat16 values in safetensors files of 5 GB and a small tokenizer. Then each of
copy, import (Hugging Face to checkpoint) and export (checkpoint to Hugging Face) runs in a process of its own, with the
files that it reads dropped from the disk cache before, and flushes what it wrote to the disk. Peak memory is the
process's high-water mark (VmHWM, without the interpreter that started it); tensors are compared byte by byte after.
Everything that is written is removed at the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers

import jaxwiz
from jaxwiz.convert.memory import peak_bytes
from jaxwiz.convert.names import rules_for, tensor_names
from jaxwiz.convert.safetensors_file import DTYPES, make_header, read_header
from jaxwiz.model.config import LlamaConfig

RESULTS = Path(__file__).parent / "results" / "convert.json"

# codellama/CodeLlama-7b-hf, config.json
SHAPE = {
    "vocab_size": 32016,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_heads": 32,
    "num_kv_heads": 32,
    "head_dim": 128,
    "rope_theta": 1_000_000.0,
    "max_positions": 16384,
}
SHARD_BYTES = 5_000_000_000
WRITE_BYTES = 64 << 20


def make_model(folder: Path, layers: int) -> None:
    """Writes a Hugging Face folder with random weights."""
    config = LlamaConfig(num_layers=layers, **SHAPE)
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf() | {"torch_dtype": "bfloat16"}))
    tokenizer = Tokenizer(models.BPE(vocab={**_alphabet(), "</s>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    shapes = {name: rule.tensor_shape(config) for rule in rules_for(config) for name in tensor_names(rule, config)}
    weight_map, shard, number = {}, {}, 1
    for position, (name, shape) in enumerate(shapes.items()):
        shard[name] = (shape, DTYPES["BF16"])
        weight_map[name] = f"model-{number:05}.safetensors"
        if position + 1 == len(shapes) or 2 * sum(np.prod(kept) for kept, _ in shard.values()) > SHARD_BYTES:
            _write_random(folder / weight_map[name], shard, random)
            shard, number = {}, number + 1
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _alphabet() -> dict[str, int]:
    return {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _write_random(path: Path, shard: dict, random: np.random.Generator) -> None:
    header, _ = make_header(shard)
    rest = 2 * sum(int(np.prod(shape)) for shape, _ in shard.values())
    with open(path, "wb") as file:
        file.write(header)
        while rest:
            bits = random.integers(0, 1 << 16, min(rest, WRITE_BYTES) // 2, dtype=np.uint16)
            file.write(((bits & 0x83FF) | 0x3C00).tobytes())  # any sign and mantissa, magnitude 2^-7 to 2
            rest -= bits.nbytes


def copy(source: Path, target: Path) -> None:
    """Copies the files of a folder and flushes them to disk."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)
        with open(target / path.name, "rb") as file:
            os.fsync(file.fileno())


def convert(source: Path, target: Path, kind: str, max_host_gib: float) -> None:
    """Converts a folder of `kind` ("hf" or "checkpoint") into the other kind."""
    from jaxwiz.config import parse_config
    from jaxwiz.convert.config import ConvertConfig
    from jaxwiz.convert.run import run

    body = {"out": str(target), "source": {"kind": kind, "path": str(source)}, "max_host_gib": max_host_gib}
    run(parse_config({**body, "target": "checkpoint" if kind == "hf" else "hf"}, ConvertConfig, "benchmark"))


def measure(step: str, source: Path, target: Path, options: argparse.Namespace) -> dict[str, float]:
    """Returns seconds, GB/s and peak GiB of one step, run in a process of its own."""
    _forget(source)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    command = [sys.executable, __file__, "--folder", str(options.folder), "--max-host-gib", str(options.max_host_gib)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--step", step, str(source), str(target)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "GB/s": size / 1e9 / seconds, "peak GiB": int(done.stdout) / 2**30}


def _forget(folder: Path) -> None:
    """Drops a folder's files from the disk cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def require_equal_tensors(first: Path, second: Path) -> None:
    """Ends the program if two Hugging Face folders differ in a tensor's bytes."""
    before, after = (
        {name: place for path in folder.glob("*.safetensors") for name, place in read_header(path).items()}
        for folder in (first, second)
    )
    assert before.keys() == after.keys()
    for name, place in before.items():
        other = after[name]
        count = 2 * int(np.prod(place.shape))
        for start in range(0, count, WRITE_BYTES):
            part = min(WRITE_BYTES, count - start)
            ours = np.fromfile(other.path, np.uint8, part, offset=other.offset + start)
            theirs = np.fromfile(place.path, np.uint8, part, offset=place.offset + start)
            if (place.shape, place.dtype) != (other.shape, other.dtype) or not np.array_equal(ours, theirs):
                raise SystemExit(f"{name} came back changed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to work; a subfolder is made and removed")
    parser.add_argument("--layers", type=int, default=32, help="32 is the 7B model")
    parser.add_argument("--max-host-gib", type=float, default=4.0)
    parser.add_argument("--json", type=Path, default=None, help=f"where to write the figures, for instance {RESULTS}")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, source, target = options.step[0], Path(options.step[1]), Path(options.step[2])
        if step == "copy":
            copy(source, target)
        else:
            convert(source, target, "hf" if step == "import" else "checkpoint", options.max_host_gib)
        print(peak_bytes())
        return
    work = options.folder / "jaxwiz-benchmark-convert"
    shutil.rmtree(work, ignore_errors=True)
    try:
        make_model(work / "hf", options.layers)
        steps = {"copy": measure("copy", work / "hf", work / "copy", options)}
        shutil.rmtree(work / "copy")
        steps["import"] = measure("import", work / "hf", work / "checkpoint", options)
        steps["export"] = measure("export", work / "checkpoint" / "model", work / "out", options)
        require_equal_tensors(work / "hf", work / "out" / "model")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = Table("step", "seconds", "GB/s", "of copying", "peak GiB", title=f"conversion, {options.layers} layers")
    for step, result in steps.items():
        share = result["GB/s"] / steps["copy"]["GB/s"]
        table.add_row(
            step, f"{result['seconds']:.1f}", f"{result['GB/s']:.2f}", f"{share:.0%}", f"{result['peak GiB']:.2f}"
        )
    Console().print(table)
    print("all tensors came back byte for byte")
    if options.json:
        options.json.parent.mkdir(exist_ok=True)
        figures = {"jaxwiz": jaxwiz.__version__, "layers": options.layers, "max_host_gib": options.max_host_gib}
        options.json.write_text(json.dumps({**figures, "cores": os.cpu_count(), "steps": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
