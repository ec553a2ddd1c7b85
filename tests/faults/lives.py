"""One process or several of a small training run, and what they leave."""

import concurrent.futures
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxwiz.config import to_yaml
from jaxwiz.train.config import (
    BatchConfig,
    ComputeConfig,
    FaultsConfig,
    IntervalsConfig,
    OptimizerConfig,
    TrainConfig,
)

ROOT = Path(__file__).resolve().parents[2]
SAVE_EVERY = 2

Died = subprocess.CompletedProcess[str]


def a_config(out: Path, dataset: Path, checkpoint: Path, steps: int, rows: int, **faults: Any) -> TrainConfig:
    return TrainConfig(
        out=out,
        dataset=dataset,
        checkpoint=checkpoint,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
        batch=BatchConfig(rows=rows),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=steps,
        seed=3,
        intervals=IntervalsConfig(checkpoint_steps=SAVE_EVERY, eval_steps=5, faults=FaultsConfig(**faults)),
    )


def live(config: TrainConfig, *moment: object, devices: int = 1, environ: dict[str, str] | None = None) -> Died:
    """Returns what one process of the run came to; `moment` is what `killed_training` takes."""
    path = config.out.with_suffix(".yaml")
    path.write_text(to_yaml(config))
    # NPROC: XLA runs collectives of many devices on a pool of as many threads as it believes there are cores.
    flags = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        **({"NPROC": "64"} if devices > 1 else {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_training", str(path), *map(str, moment)],
        cwd=ROOT,
        env={**os.environ, **flags, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )


def live_by_two(config: TrainConfig, *moments: Sequence[object]) -> list[Died]:
    """Returns what two processes of two devices came to, each with a moment of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    job = {"JAXWIZ_COORDINATOR": f"127.0.0.1:{port}", "JAXWIZ_PROCESSES": "2"}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = [
            pool.submit(live, config, *moment, devices=2, environ={**job, "JAXWIZ_PROCESS_ID": str(index)})
            for index, moment in enumerate(moments)
        ]
        return [each.result() for each in started]


def last_state(config: TrainConfig) -> Any:
    """Returns the arrays of the only state that a finished run has kept."""
    assert config.steps is not None
    steps = [int(path.name) for path in (config.out / "state").iterdir()]
    assert steps == [(config.steps - 1) // SAVE_EVERY * SAVE_EVERY]  # one is kept, and none is in pieces
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(config.out / "state" / str(steps[0]) / "arrays")


def assert_same_bits(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def batches(config: TrainConfig) -> dict[int, set[str]]:
    """Returns {step: digests of the tokens that it was ever fed}."""
    seen: dict[int, set[str]] = {}
    for line in (config.out / "batches.jsonl").read_text().splitlines():
        step, digest = json.loads(line)
        seen.setdefault(step, set()).add(digest)
    return seen


def write_result(name: str, result: dict[str, Any]) -> None:
    """Keeps the figures of a fault test, as benchmarks keep theirs."""
    (ROOT / "benchmarks" / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
