"""A pipeline's dry run: what each step will take follows from the steps before it, and nothing is written."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from jaxwiz.cli import main
from jaxwiz.plan import build
from jaxwiz.plan.build import plan_of
from jaxwiz.plan.request import OutOfMemory, Request
from tests.plan.test_command import MODEL, compiled

SEEDS = [{"instruction": "x" * 400, "output": "y" * 400}, {"instruction": "x" * 400, "output": "y" * 400}]
EVOLVE = {
    "stage": "evolve",
    "set": {
        "generator": {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "m", "api_key_env": ""},
        "operations": {"code/add_constraint": 1},
        "rounds": 1,
    },
}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in SEEDS))
    evolve = {**EVOLVE, "set": {**EVOLVE["set"], "seeds": "seeds.jsonl"}}
    data = {"sources": ["${evolve}/evolved.jsonl"], "tokenizer": "t", "sequence_length": 64, "heldout_share": 0.0}
    train = {"dataset": "${data}", "checkpoint": "c", "epochs": 2, "batch": {"rows": 4}}
    sample = {"checkpoint": "${train}/model", "benchmark": {"kind": "humaneval", "limit": 10}, "samples_per_task": 3}
    score = {"samples": "${sample}/completions.jsonl"}
    steps = {
        "evolve": evolve,
        "data": {"stage": "data", "set": data},
        "train": {"stage": "train", "set": train},
        "sample": {"stage": "sample", "set": {**sample, "sampling": {"max_new_tokens": 100}}},
        "score": {
            "stage": "evaluate",
            "set": {**score, "workers": 3, "timeout_s": 2.0},
        },
    }
    Path("line.yaml").write_text(yaml.safe_dump({"out": "run", "steps": steps}, sort_keys=False))
    return Path("line.yaml")


def dry_run(pipeline: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert main(["run", str(pipeline), *overrides, "--dry-run"]) == 0
    assert not Path("run").exists()
    return capsys.readouterr().out


def test_each_estimate_rests_on_the_one_before(pipeline: Path, capsys: pytest.CaptureFixture[str]):
    told = dry_run(pipeline, capsys)
    # Two seeds of 200 tokens each and two evolutions of 125, answered in 400: 1,450; and 40 a row for the template.
    assert "about 4 examples, 1,610 tokens, 26 rows of 64 to train on" in told
    assert "2 epoch(s), batches of 4 rows: about 13 step(s)" in told
    assert "30 answers to 10 tasks, at most 3,000 tokens" in told
    assert "30 programs by 3 worker(s): about 0 s, and at most 20 s" in told
    assert "writes run/train/model, run/train/summary.json, run/train/summary.txt" in told
    assert "10 step(s)" in dry_run(pipeline, capsys, "train.steps=10", "train.epochs=null")


def test_sources_that_exist_are_counted(pipeline: Path, capsys: pytest.CaptureFixture[str]):
    assert "about 2 examples, 480 tokens, 8 rows of 64" in dry_run(pipeline, capsys, "data.sources=[seeds.jsonl]")


def test_a_pod_is_planned(pipeline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    line = yaml.safe_load(pipeline.read_text())
    line["steps"]["train"]["pod"] = {"topology": "v5e:4x4", "model": str(MODEL)}
    line["steps"]["train"]["set"]["batch"] = {"rows": 16}
    pipeline.write_text(yaml.safe_dump(line, sort_keys=False))
    asked: list[Request] = []

    def plan(request: Request):
        asked.append(request)
        return plan_of(request, compiled(request))

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "v5e:4x4: not planned, libtpu is not installed" in dry_run(pipeline, capsys)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(build, "make_plan", plan)
    told = dry_run(pipeline, capsys)
    assert asked[0].length == 64
    assert asked[0].topology.chips == 16
    assert "v5e:4x4: 10.0 GiB of a chip's memory" in told
    assert "h on 16 chips" in told
    monkeypatch.setattr(build, "make_plan", lambda request: OutOfMemory("no room", 2**31))
    assert "DOES NOT FIT" in dry_run(pipeline, capsys)
