"""A loop with real stages in real processes and a tiny random model, killed between two rounds and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jaxwiz.records import Seed, write_records
from tests.pipeline.test_interrupted_run import pipeline_config

DEADLINE_S = 400.0


def write_loop(folder: Path, tokenizer: Path) -> Path:
    """Returns a loop's file made of the steps of the tests' pipeline."""
    pipeline = pipeline_config(folder, tokenizer)
    steps = pipeline["steps"]
    steps["train"]["set"] |= {"steps": 2, "intervals": {"checkpoint_steps": 2}}
    ids = {"kind": "humaneval", "ids": [f"HumanEval/{number}" for number in range(4)]}
    loop = {
        "out": str(folder / "loop"),
        "rounds": 1,
        "development": ids,
        "reported": [{"kind": "humaneval", "ids": ["HumanEval/100", "HumanEval/101"]}],
        "once": {"model": steps["model"]},
        "round": {
            **{name: steps[name] for name in ("evolve", "data", "train", "sample")},
            "score": {"stage": "evaluate", "set": {"samples": "${sample}/completions.jsonl"}},
        },
    }
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump(loop, sort_keys=False))
    return path


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jaxwiz.cli", "evolve-loop", str(path)]
    log = open(path.parent / "log.txt", "a")  # noqa: SIM115 - the process keeps it
    return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)


@pytest.mark.multiprocess
def test_rounds_of_real_stages_killed_and_started_again(tmp_path: Path, tiny_tokenizer_folder: Path):
    seeds = [
        Seed(id=f"s{n}", instruction=f"Write a function that adds {n} to a number.", output=f"x + {n}")
        for n in range(30)
    ]
    write_records(tmp_path / "seeds.jsonl", seeds)
    path = write_loop(tmp_path, tiny_tokenizer_folder)
    out = tmp_path / "loop"
    process = start(path)
    deadline = time.monotonic() + DEADLINE_S
    while not (out / "round-1/evolve/step.json").exists():
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log.txt").read_text()[-3000:]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((out / "loop.json").read_text())["ended"] == ""
    code = start(path).wait(timeout=DEADLINE_S)
    log = (tmp_path / "log.txt").read_text()
    assert code == 0, log[-3000:]
    assert log.count("skipped, inputs and config have not changed") == 6, "the model and round 0"
    found = json.loads((out / "loop.json").read_text())
    assert [one["round"] for one in found["rounds"]] == [0, 1] and found["ended"] == "rounds"
    assert found["rounds"][0]["rows"] == 30
    assert (out / "best/train/model").is_dir()
