"""A conversion takes memory by its blocks, not by its model: measured in a process of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.tensors import ModelFiles, ParamsReader
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import abstract_params

SCRIPT = """
    import json, sys
    from pathlib import Path
    from jaxwiz.config import parse_config
    from jaxwiz.convert import flow
    from jaxwiz.convert.config import ConvertConfig
    from jaxwiz.convert.memory import peak_bytes, resident_bytes
    from jaxwiz.convert.run import run

    flow.BLOCK_BYTES = 1 << 20
    before = []
    plan = flow.Flow.run
    def measured(self, *arguments):
        before.append(resident_bytes())
        plan(self, *arguments)
    flow.Flow.run = measured
    body = {"out": sys.argv[3], "source": {"kind": sys.argv[1], "path": sys.argv[2]}}
    target = "checkpoint" if sys.argv[1] == "hf" else "hf"
    run(parse_config({**body, "target": target}, ConvertConfig, "test"))
    print(peak_bytes() - before[0])
"""


def _converted(kind: str, source: Path, out: Path) -> tuple[Path, int]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), kind, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "model", int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc for this process's memory alone")
def test_memory_grows_by_blocks_alone(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=512,
        intermediate_size=2048,
        num_layers=8,
        num_heads=8,
        num_kv_heads=8,
        head_dim=64,
    )
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32), abstract_params(config))
    write_hf_folder(tmp_path / "hf", ModelFiles(ParamsReader(params, config), config, tiny_tokenizer_folder, {}))
    weights = tmp_path / "hf" / "model.safetensors"
    size = weights.stat().st_size
    assert size > 130e6
    checkpoint, growth = _converted("hf", tmp_path / "hf", tmp_path / "checkpoint")
    assert growth < size / 2  # a few blocks of 1 MiB for each of up to 8 threads
    exported, growth = _converted("checkpoint", checkpoint, tmp_path / "exported")
    assert growth < size / 2
    assert (exported / "model.safetensors").read_bytes() == weights.read_bytes()
