"""The command itself, stopped from outside and run again with another config: refused by a list, or allowed by name."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxwiz.config import to_yaml
from jaxwiz.exit_codes import PREEMPTED
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.status import lives
from tests.faults.lives import ROOT

pytestmark = pytest.mark.faults


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jaxwiz.cli", "train", str(path), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], out: Path, after_step: int) -> str:
    """Returns what the process said after it was told to stop, once a step was done."""
    while (read_metrics(out / "metrics.jsonl") or [{"step": 0}])[-1]["step"] <= after_step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == PREEMPTED, said
    return said


def test_a_changed_config_is_refused_whole_or_continues_where_it_is_allowed(whole: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(whole, out=tmp_path / "out", steps=100_000)
    path = tmp_path / "train.yaml"
    path.write_text(f"stage: train\n{to_yaml(config)}")
    stop(start(path), config.out, after_step=2)
    saved = int(max(lives(config.out), key=lambda life: life.start["time"]).end["step"])  # type: ignore[index]

    refused = start(path, "seed=7", "optimizer.weight_decay=0.25")
    _, said = refused.communicate(timeout=60)
    assert refused.returncode == 2, said
    for line in (
        f"holds the state of step {saved} of a run with another config",
        "optimizer.weight_decay: 0.0 -> 0.25",
        "seed: 3 -> 7",
        "--allow-change optimizer.weight_decay seed",
    ):
        assert line in said, said
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == ["out"], "nothing is moved aside"

    allowed = start(path, "optimizer.weight_decay=0.25", "intervals.log_steps=2", "--allow-change", "optimizer")
    said = stop(allowed, config.out, after_step=saved)
    assert f"continues after step {saved} of 100000" in said
    assert "goes on with a change: optimizer.weight_decay: 0.0 -> 0.25 (allowed)" in said
    assert "goes on with a change: intervals.log_steps: 1 -> 2" in said
