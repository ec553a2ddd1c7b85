"""Pass@k during training: measured where it is due, once, without a trace in what is trained, and checked before."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxwiz.checkpoint.weights import load_weights
from jaxwiz.records import Verdict, read_records
from jaxwiz.sandbox import SandboxError
from jaxwiz.train import loop
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, TrainBenchmarkConfig, TrainConfig
from jaxwiz.train.job import TrainError
from jaxwiz.train.metrics import MetricsLog, read_metrics


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Four steps, and a benchmark of three tasks before them, after two, and after all."""
    folder = tmp_path_factory.mktemp("benchmark")
    tasks = folder / "tasks.jsonl"
    rows = [
        {
            "task_id": f"Tiny/{number}",
            "prompt": f"def add_{number}(value):\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {number} + 1\n",
            "entry_point": f"add_{number}",
            "canonical_solution": f"    return {number} + value\n",
        }
        for number in range(3)
    ]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample: dict[str, Any] = {
        "benchmark": {"kind": "humaneval", "path": str(tasks)},
        "template": "chatml",
        "samples_per_task": 2,
        "sampling": {"temperature": 0.5, "max_new_tokens": 6},
        "batch_size": 4,
    }
    return TrainConfig(
        out=folder / "measured",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        batch=BatchConfig(rows=4),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=4,
        intervals=IntervalsConfig(checkpoint_steps=3),
        benchmark=TrainBenchmarkConfig(every_steps=2, sample=sample, evaluate={"k": [1, 2]}),
    )


@pytest.fixture(scope="module")
def asked() -> Iterator[list[str]]:
    """The points for which the sample stage was run, in order."""
    import jaxwiz.sample.run as sample_stage

    points: list[str] = []
    run = sample_stage.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_stage, "run", lambda given: (points.append(given.out.parent.name), run(given))[1])
        yield points


@pytest.fixture(scope="module")
def measured(config: TrainConfig, asked: list[str]) -> Path:
    """The folder of a run that was stopped after two points, before any state was saved, and run again."""

    class DeadlyLog(MetricsLog):
        def write_step(self, step: int, values: Mapping[str, float], timings: Mapping[str, float]) -> None:
            if step == 3:
                raise KeyboardInterrupt
            super().write_step(step, values, timings)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "MetricsLog", DeadlyLog)
        train_stage.run(config)
    assert asked == ["step-00000", "step-00002"]
    return train_stage.run(config)


def test_a_run_that_begins_again_measures_no_point_again(measured: Path, asked: list[str]) -> None:
    assert asked == ["step-00000", "step-00002", "step-00004"]


def test_points_stand_in_metrics_summary_and_tensorboard(config: TrainConfig, measured: Path) -> None:
    points = [line for line in read_metrics(measured / "metrics.jsonl") if "benchmark" in line]
    assert [point["step"] for point in points] == [0, 2, 4]
    assert all(point["benchmark"].keys() == {"pass@1", "pass@2"} for point in points)
    summary = json.loads((measured / "summary.json").read_text())
    assert summary["benchmark_curve"] == [[point["step"], point["benchmark"]] for point in points]
    assert "after step 2: pass@1 " in (measured / "summary.txt").read_text()
    events = max((measured / "tensorboard").iterdir())
    assert b"benchmark/pass_1" in events.read_bytes()  # TensorBoard has no @


def test_a_point_is_what_both_stages_write_with_the_weights_of_its_step(measured: Path) -> None:
    folder = measured / "benchmark" / "step-00002"
    verdicts = list(read_records(folder / "evaluate" / "verdicts.jsonl", Verdict))
    assert [(verdict.task_id, verdict.sample) for verdict in verdicts] == [
        (f"Tiny/{number}", sample) for number in range(3) for sample in range(2)
    ]
    (system,) = json.loads((folder / "evaluate" / "report.json").read_text())["systems"].values()
    assert system["sampling"]["temperature"] == 0.5
    assert system["model"]["provenance"]["steps"] == 2
    assert not (folder / "model").exists()


def test_what_is_trained_does_not_know_of_it(config: TrainConfig, measured: Path) -> None:
    plain = train_stage.run(dataclasses.replace(config, out=config.out.with_name("plain"), benchmark=None))
    lines = [line for line in read_metrics(measured / "metrics.jsonl") if "benchmark" not in line]
    assert read_metrics(plain / "metrics.jsonl") == lines
    one, other = load_weights(plain / "model"), load_weights(measured / "model")
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def test_check_runs_both_stages_checks(config: TrainConfig) -> None:
    found = [finding.message for finding in train_stage.check(config) if finding.message.startswith("benchmark.")]
    assert any(message.startswith("benchmark.sample: 6 answers, prompts of ") for message in found)
    assert any(message.startswith("benchmark.evaluate: 3 tasks, 1 systems, 6 programs") for message in found)
    assert any(message.startswith("benchmark.evaluate: sandbox level ") for message in found)
    assert not config.out.with_name("unused").exists()


def test_what_stands_against_it_is_said_before_training(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.benchmark is not None
    faulty = dataclasses.replace(
        config.benchmark,
        sample={**config.benchmark.sample, "checkpoint": "x", "batchsize": 4},
        evaluate={"samples": "y", "k": [0]},
    )
    unused = dataclasses.replace(config, out=config.out.with_name("unused"), benchmark=faulty)
    with pytest.raises(TrainError) as raised:
        train_stage.run(unused)
    for told in (
        "benchmark.sample.checkpoint: is set by the train stage; leave it out",
        "batchsize = 4: unknown key; did you mean 'batch_size'?",
        "benchmark.evaluate.samples: is set by the train stage; leave it out",
        "k.0 = 0: input should be greater than 0",
    ):
        assert told in str(raised.value)

    def refuse(*_: object) -> None:
        raise SandboxError("sandbox: programs can't be confined here")

    monkeypatch.setattr("jaxwiz.evaluate.run.sandbox_level", refuse)
    with pytest.raises(TrainError, match=r"benchmark\.evaluate: sandbox: programs can't be confined here"):
        train_stage.run(dataclasses.replace(unused, benchmark=config.benchmark))
    assert not (unused.out / "state").exists()
