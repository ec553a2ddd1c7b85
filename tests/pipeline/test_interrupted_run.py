"""`jaxwiz run`, killed with SIGKILL in every stage and started again, ends with the files of an undisturbed run.

Real processes, every stage, a tiny random model. The texts are gibberish; what counts is that they are the same.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from jaxwiz.files import sha256_of_path
from jaxwiz.records import Seed, write_records

STEPS = ("model", "evolve", "data", "train", "sample", "export", "evaluate")

# What must be equal, bit for bit: all results but timings and the summaries that show them.
COMPARED = (
    "evolve/evolved.jsonl",
    "evolve/rejected.jsonl",
    "data/dataset",
    "data/manifest.json",
    "train/metrics.jsonl",
    "sample/completions.jsonl",
    "export/model/model.safetensors",
    "evaluate/verdicts.jsonl",
)


def pipeline_config(folder: Path, tokenizer: Path) -> dict:
    shape = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 4}
    shape |= {"num_kv_heads": 2, "head_dim": 8, "max_positions": 4096}
    call = {"max_new_tokens": 12}
    sampled = {"checkpoint": "${train}/model", "sampling": {"max_new_tokens": 16}, "batch_size": 4}
    steps = {
        "model": ("convert", {"source": {"kind": "random", "model": shape, "tokenizer": str(tokenizer)}}),
        "evolve": (
            "evolve",
            {
                "seeds": str(folder / "seeds.jsonl"),
                "generator": {
                    "kind": "jax",
                    "checkpoint": "${model}/model",
                    "batch_size": 2,
                    "max_prompt_tokens": 3000,
                },
                "operations": {"in_depth/add_constraints": 1.0, "in_breadth/rarer_topic": 1.0},
                "rounds": 2,
                "items_per_round": 4,
                "calls": {"evolve": call, "answer": call},
            },
        ),
        "data": (
            "data",
            {
                "sources": ["${evolve}/evolved.jsonl"],
                "tokenizer": "${model}/model",
                "sequence_length": 256,
                "heldout_share": 0.2,
            },
        ),
        "train": (
            "train",
            {
                "dataset": "${data}",
                "checkpoint": "${model}/model",
                "steps": 12,
                "batch": {"rows": 2},
                "intervals": {"checkpoint_steps": 3},
                "optimizer": {"learning_rate": 1e-2},
            },
        ),
        "sample": ("sample", {**sampled, "benchmark": {"kind": "humaneval", "limit": 8}}),
        "export": ("convert", {"source": {"kind": "checkpoint", "path": "${train}/model"}, "target": "hf"}),
        "evaluate": (
            "evaluate",
            {
                "benchmark": {"kind": "humaneval", "limit": 8},
                "systems": {"tiny": {"completions": "${sample}/completions.jsonl"}},
                "training": "${train}/summary.json",
            },
        ),
    }
    return {
        "out": str(folder / "run"),
        "steps": {name: {"stage": stage, "set": settings} for name, (stage, settings) in steps.items()},
    }


def prepare(folder: Path, tokenizer: Path) -> Path:
    folder.mkdir()
    seeds = [
        Seed(id=f"s{n}", instruction=f"Write a function that adds {n} to a number.", output=f"lambda x: x + {n}")
        for n in range(30)
    ]
    write_records(folder / "seeds.jsonl", seeds)
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline_config(folder, tokenizer), sort_keys=False))
    return path


def start(pipeline: Path) -> subprocess.Popen[str]:
    log = open(pipeline.parent / "log.txt", "a")  # noqa: SIM115 - the process keeps it
    command = [sys.executable, "-m", "jaxwiz.cli", "run", str(pipeline)]
    return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)


def run_to_the_end(pipeline: Path) -> str:
    process = start(pipeline)
    code = process.wait(timeout=300)
    log = (pipeline.parent / "log.txt").read_text()
    assert code == 0, log[-3000:]
    return log


def status_of(step: Path) -> str:
    try:
        return json.loads((step / "step.json").read_text())["status"]
    except OSError:
        return "absent"


def kill_during(pipeline: Path, step: str, delay_s: float) -> bool:
    """Runs the pipeline, kills it with all its processes a while after `step` began, and says if it was still there."""
    folder = pipeline.parent / "run" / step
    process = start(pipeline)
    while process.poll() is None and status_of(folder) == "absent":
        time.sleep(0.02)
    time.sleep(delay_s)
    interrupted = status_of(folder) == "running"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return interrupted


def seconds_at_work(pipeline: Path) -> dict[str, float]:
    """Runs the pipeline and returns how long each step took from the moment at which it could be seen."""
    process = start(pipeline)
    seen: dict[str, list[float]] = {step: [] for step in STEPS}
    while process.poll() is None:
        for step, moments in seen.items():
            if status_of(pipeline.parent / "run" / step) == "running":
                moments.append(time.monotonic())
        time.sleep(0.01)
    assert process.returncode == 0, (pipeline.parent / "log.txt").read_text()[-3000:]
    return {step: moments[-1] - moments[0] if moments else 0.0 for step, moments in seen.items()}


@pytest.fixture(scope="module")
def disturbed_never(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> tuple[Path, dict]:
    pipeline = prepare(tmp_path_factory.mktemp("undisturbed") / "a", tiny_tokenizer_folder)
    return pipeline, seconds_at_work(pipeline)


@pytest.fixture(scope="module")
def undisturbed(disturbed_never: tuple[Path, dict]) -> Path:
    return disturbed_never[0]


def digests(pipeline: Path) -> dict[str, str]:
    return {name: sha256_of_path(pipeline.parent / "run" / name) for name in COMPARED}


def test_a_run_killed_in_every_stage_ends_like_an_undisturbed_one(
    disturbed_never: tuple[Path, dict], tmp_path: Path, tiny_tokenizer_folder: Path
):
    undisturbed, seconds = disturbed_never
    pipeline = prepare(tmp_path / "b", tiny_tokenizer_folder)
    # Early in each step: what was compiled for the first run need not be compiled again, so this one is quicker.
    part = random.Random(0)
    interrupted = [step for step in STEPS if kill_during(pipeline, step, part.uniform(0.0, 0.4) * seconds[step])]
    assert len(interrupted) >= 4, f"only {interrupted} were caught at work; the delays no longer fit"
    run_to_the_end(pipeline)
    assert digests(pipeline) == digests(undisturbed)


def test_a_second_run_skips_every_step_and_says_so(undisturbed: Path):
    before = digests(undisturbed)
    log = run_to_the_end(undisturbed).split("[1/7]")[-1]
    assert log.count("skipped, inputs and config have not changed") == len(STEPS)
    assert "Report: " in log
    assert digests(undisturbed) == before
