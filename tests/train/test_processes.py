"""Training by several real processes on this machine: the same as by one, and an end for all when one is lost.

make test-multiprocess
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.adapter import load_adapter
from jaxwiz.checkpoint.weights import load_weights
from jaxwiz.config import to_yaml
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import (
    BatchConfig,
    ComputeConfig,
    IntervalsConfig,
    OptimizerConfig,
    TrainBenchmarkConfig,
    TrainConfig,
)
from jaxwiz.train.metrics import read_metrics
from tests.train.tiny import MODEL

pytestmark = pytest.mark.multiprocess

ROOT = Path(__file__).resolve().parents[2]
JAXWIZ = Path(sys.executable).with_name("jaxwiz")


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return TrainConfig(
        out=tmp_path_factory.mktemp("train") / "one",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
        batch=BatchConfig(rows=8),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=20,
        seed=3,
        intervals=IntervalsConfig(checkpoint_steps=6, eval_steps=10),
    )


@pytest.fixture(scope="module")
def by_one(config: TrainConfig) -> Path:
    """The folder of a run by one process with one device."""
    return train_stage.run(config)


def write_config(config: TrainConfig) -> Path:
    path = config.out.with_suffix(".yaml")
    path.write_text(f"stage: train\n{to_yaml(config)}")
    return path


def environ(devices: int = 1, **more: str) -> dict[str, str]:
    # NPROC: XLA runs collectives of many devices on a pool of as many threads as it believes there are cores.
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "NPROC": "64", **more}


def run_locally(config: TrainConfig, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Returns what launch/local.sh came to, with two processes."""
    return subprocess.run(
        [str(ROOT / "launch" / "local.sh"), "2", "train", str(write_config(config)), *arguments],
        env=environ(devices, JAXWIZ=str(JAXWIZ)),
        capture_output=True,
        text=True,
        timeout=400,
    )


def start(config: TrainConfig, count: int, told: dict[int, dict[str, Any]]) -> list[subprocess.Popen[str]]:
    """Starts processes one by one as srun does; `told` gives some other arguments, devices, cwd or environment."""
    job, path = str(os.getpid() * 7 + int(time.time()) % 4096), write_config(config)
    started = []
    for index in range(count):
        other = told.get(index, {})
        slurm = {
            "SLURM_JOB_ID": job,
            "SLURM_STEP_NODELIST": "127.0.0.1",
            "SLURM_STEP_NUM_TASKS": str(count),
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
            "SLURM_STEP_TASKS_PER_NODE": str(count),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxwiz.cli", "train", str(path), *other.get("arguments", ())],
            env=environ(other.get("devices", 1), **slurm, **other.get("environ", {})),
            cwd=other.get("cwd", ROOT),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
    return started


def assert_alike(found: Path, expected: Path) -> None:
    lines, expected_lines = (read_metrics(folder / "metrics.jsonl") for folder in (found, expected))
    for line, expected_line in zip(lines, expected_lines, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-4)


def test_two_processes_with_four_devices_each_give_the_losses_of_one_device(config: TrainConfig, by_one: Path) -> None:
    two = dataclasses.replace(config, out=config.out.with_name("two"))
    done = run_locally(two, "--profile", devices=4)
    assert done.returncode == 0, done.stderr
    assert_alike(two.out, by_one)
    trained, expected = load_weights(two.out / "model"), load_weights(by_one / "model")
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-4), trained, expected)

    assert "2 processes, launched by explicit settings" in done.stderr
    assert done.stderr.count("compiling for 8 device(s)") == 1  # only process 0 speaks
    assert re.search(r"devices were busy \d+\.\d% of the time, and waited for the host \d+\.\d%", done.stderr)
    for index in (0, 1):
        log = (two.out / "logs" / f"process-{index}.log").read_text()
        assert f"process {index} of 2" in log and "compiling for 8 device(s)" in log

    again = run_locally(two, devices=4)
    assert again.returncode == 0 and again.stderr.count("skipped") == 1


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_killed_process_ends_the_others_by_name_and_the_run_goes_on_later(
    config: TrainConfig, by_one: Path, culprit: int
) -> None:
    killed = dataclasses.replace(config, out=config.out.with_name(f"killed-{culprit}"))
    processes = start(killed, 2, {})
    while len(read_metrics(killed.out / "metrics.jsonl")) < 10:
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.02)
    processes[culprit].kill()
    began = time.monotonic()
    survivor = processes[1 - culprit]
    _, said = survivor.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert survivor.returncode != 0
    named = rf"process {culprit} of 2 \(.*, pid {processes[culprit].pid}\) was lost"
    assert re.search(named, said), said
    assert re.search(named, (killed.out / "logs" / f"process-{1 - culprit}.log").read_text())
    assert processes[culprit].wait() == -signal.SIGKILL

    done = run_locally(killed)
    assert done.returncode == 0, done.stderr
    assert "continues after step 6 of 20" in done.stderr or "continues after step 12 of 20" in done.stderr
    assert_alike(killed.out, by_one)


@pytest.fixture
def another_dataset(config: TrainConfig, tmp_path: Path) -> Path:
    """A folder in which `data` is the dataset, but for a word in its manifest."""
    shutil.copytree(config.dataset, tmp_path / "elsewhere" / "data")
    manifest = tmp_path / "elsewhere" / "data" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").symlink_to(config.dataset)
    return tmp_path


def test_processes_that_are_not_alike_are_told_which_and_in_what(
    config: TrainConfig, another_dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "jaxwiz", tmp_path / "code" / "jaxwiz")
    (tmp_path / "code" / "jaxwiz" / "train" / "loop.py").open("a").write("# changed\n")
    here, elsewhere = another_dataset / "here", another_dataset / "elsewhere"
    cases: list[tuple[dict[int, dict[str, Any]], str]] = [
        ({1: {"arguments": ["steps=10"]}}, r"process 1 of 2 differs in config: steps = 10, elsewhere 20"),
        (
            {1: {"cwd": tmp_path / "code"}},
            r"process 1 of 2 differs in code: source of jaxwiz = \w+, elsewhere \w+",
        ),
        (
            {
                0: {"arguments": ["dataset=data"], "cwd": here},
                1: {"arguments": ["dataset=data"], "cwd": elsewhere},
            },
            r"process 1 of 2 differs in data manifest: data = \w+, elsewhere \w+",
        ),
        ({1: {"devices": 2}}, r"process 1 of 2 differs in devices: own = 2 x cpu, elsewhere 1 x cpu"),
    ]
    for number, (told, message) in enumerate(cases):
        unlike = dataclasses.replace(config, out=tmp_path / f"unlike-{number}")
        processes = start(unlike, 2, told)
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 2, said
            assert re.search(message, said), said
        assert not (unlike.out / "state").exists()


def test_an_error_in_one_process_reaches_the_other(config: TrainConfig, tmp_path: Path) -> None:
    lonely = dataclasses.replace(config, out=tmp_path / "out")
    processes = start(lonely, 2, {1: {"arguments": ["steps=none"]}})
    (_, said), (_, said_by_culprit) = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [1, 2]
    assert "steps" in said_by_culprit
    assert re.search(r"process 1 of 2 .* failed: ", said) and "steps" in said


def test_two_processes_train_adapters_and_measure_a_benchmark(config: TrainConfig, tmp_path: Path) -> None:
    task = {
        "task_id": "Tiny/0",
        "prompt": "def add(value):\n",
        "test": "def check(candidate):\n    assert candidate(1) == 1\n",
        "entry_point": "add",
        "canonical_solution": "    return value\n",
    }
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps(task) + "\n")
    sample: dict[str, Any] = {
        "benchmark": {"kind": "humaneval", "path": str(tasks)},
        "template": "chatml",
        "sampling": {"max_new_tokens": 4},
        "batch_size": 1,
    }
    alone = dataclasses.replace(
        config,
        out=tmp_path / "alone",
        lora=LoraConfig(rank=4),
        steps=2,
        intervals=IntervalsConfig(),
        benchmark=TrainBenchmarkConfig(every_steps=2, sample=sample),
    )
    together = dataclasses.replace(alone, out=tmp_path / "together")
    train_stage.run(alone)
    done = run_locally(together)
    assert done.returncode == 0, done.stderr
    one, other = (load_adapter(run.out / "adapter", MODEL).params for run in (alone, together))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, other)
    points = [line for line in read_metrics(together.out / "metrics.jsonl") if "benchmark" in line]
    assert [point["step"] for point in points] == [0, 2]
