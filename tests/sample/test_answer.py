"""Answers from wherever: a checkpoint that a machine doesn't see, and a cluster that writes the same completions."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from jaxwiz.fanout import FanoutError, RayEngine
from jaxwiz.files import UserError
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.sample import run as stage
from jaxwiz.sample.answer import answer_batches, engine_settings
from jaxwiz.sample.config import SampleConfig, SamplingConfig
from jaxwiz.sample.requests import Request

BATCHES = [(0, [Request(prompt=[5, 6, 7], max_new_tokens=3)])]


def asked_of(checkpoint: Path) -> SampleConfig:
    return SampleConfig(out=Path("nowhere"), checkpoint=checkpoint, template="none", batch_size=2)


@pytest.fixture(scope="module")
def config(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleConfig:
    """Thirty answers in eight batches, drawn at a temperature."""
    folder = tmp_path_factory.mktemp("answers")
    path = folder / "tasks.jsonl"
    rows = [
        {
            "task_id": f"Tiny/{number}",
            "prompt": f"def task_{number}(x):\n" + "    # more\n" * (number * 3 % 5),
            "test": "def check(candidate):\n    pass\n",
            "entry_point": f"task_{number}",
            "canonical_solution": "    return x\n",
        }
        for number in range(10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SampleConfig(
        out=folder / "here",
        checkpoint=checkpoint,
        benchmark=HumanEvalConfig(path=path),
        template="chatml",
        prompt_style="chat",
        samples_per_task=3,
        sampling=SamplingConfig(temperature=0.8, max_new_tokens=40, seed=1),
        batch_size=4,
    )


@pytest.fixture(scope="module")
def whole(config: SampleConfig) -> bytes:
    """The completions that this machine writes."""
    return (stage.run(config) / "completions.jsonl").read_bytes()


def test_a_checkpoint_that_is_not_there_or_another_one_is_named(checkpoint: Path, tmp_path: Path) -> None:
    here = engine_settings(asked_of(checkpoint), 10, draws_ahead=True)
    elsewhere = dataclasses.replace(here, checkpoint=tmp_path / "gone")
    with pytest.raises(
        UserError, match=r"gone': not to be seen from here; put it on a file system that all nodes share"
    ):
        next(answer_batches(elsewhere, iter(BATCHES)))
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "model.json").write_text((copy / "model.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"copy': another checkpoint lies at this path; copy the same one"):
        next(answer_batches(dataclasses.replace(here, checkpoint=copy), iter(BATCHES)))


def test_progress_is_told_while_a_batch_is_under_way(checkpoint: Path) -> None:
    told: list[tuple[int, int, float]] = []
    settings = engine_settings(asked_of(checkpoint), 10, draws_ahead=True)
    ((number, answered),) = answer_batches(settings, iter(BATCHES), lambda *values: told.append(values))
    assert number == 0
    assert sum(tokens for tokens, _, _ in told) == len(answered.answers[0].tokens) == 3
    assert sum(finished for _, finished, _ in told) == 1
    assert 0 < sum(seconds for _, _, seconds in told) <= answered.seconds


@pytest.mark.ray
def test_a_cluster_goes_on_where_one_machine_stopped(config: SampleConfig, whole: bytes, cluster_address: str) -> None:
    begun = dataclasses.replace(config, out=config.out.with_name("begun"), engine=RayEngine(address=cluster_address))
    (begun.out / "batches").mkdir(parents=True)
    for number in (0, 3):
        shutil.copy(config.out / "batches" / f"{number:05d}.jsonl", begun.out / "batches")
    assert (stage.run(begun) / "completions.jsonl").read_bytes() == whole
    assert "tokens/s" in (begun.out / "summary.txt").read_text()


@pytest.mark.ray
def test_batches_of_another_size_give_the_same_completions(
    config: SampleConfig, whole: bytes, cluster_address: str
) -> None:
    engine = RayEngine(address=cluster_address)
    other = dataclasses.replace(config, out=config.out.with_name("other"), batch_size=7, engine=engine)
    assert (stage.run(other) / "completions.jsonl").read_bytes() == whole


@pytest.mark.ray
def test_a_node_that_does_not_see_the_checkpoint_is_named(
    config: SampleConfig, cluster_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = dataclasses.replace(engine_settings(config, 10, draws_ahead=False), checkpoint=tmp_path / "no")
    monkeypatch.setattr("jaxwiz.sample.answer.engine_settings", lambda *_, **__: settings)
    with pytest.raises(FanoutError, match=r"^node [\d.]+ \(\w+\): checkpoint = '.*no': not to be seen from here"):
        stage.run(dataclasses.replace(config, out=tmp_path / "out", engine=RayEngine(address=cluster_address)))
