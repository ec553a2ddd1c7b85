"""Programs on the nodes of a cluster: the same verdicts as here, also when a node dies; never of another sandbox."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.evaluate import run as stage
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.score import JOURNAL
from jaxwiz.evaluate.spread import make_runner, run_confined
from jaxwiz.fanout import FanoutError, RayEngine
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.records import Completion, write_records
from jaxwiz.sandbox import Level, Limits, Program, SandboxError, sandbox_level
from tests.ray_cluster import TwoNodes

LIMITS = Limits(timeout_s=2.0)


@pytest.fixture(scope="module")
def level() -> Level:
    """The level of this machine."""
    return sandbox_level()


def programs(count: int) -> Iterator[tuple[tuple[str, str, int], Program]]:
    """Yields programs of which every fifth fails, every seventh crashes, and one runs on."""
    for number in range(count):
        source = f"assert {number} % 5"
        if number % 7 == 0:
            source = "import os; os.abort()"
        if number == 11:
            source = "while True: pass"
        yield ("model", f"Task/{number}", 0), Program(source)


def test_a_machine_with_another_sandbox_runs_nothing(level: Level) -> None:
    other = Level("L1", ("landlock",))
    with pytest.raises(
        SandboxError, match=rf"sandbox level {level.name} with .*, but L1 with landlock where the evalua"
    ):
        next(run_confined(other, LIMITS, 1, False, programs(1)))


@pytest.mark.ray
def test_a_node_with_another_sandbox_is_named(level: Level, cluster_address: str, tmp_path: Path) -> None:
    config = EvaluateConfig(out=tmp_path, samples=tmp_path, engine=RayEngine(address=cluster_address))
    run = make_runner(config, LIMITS, Level("L1", ("landlock",)))
    with pytest.raises(FanoutError, match=r"^node [\d.]+ \(\w+\): sandbox level L.*: make the machines alike, or keep"):
        list(run(programs(3)))


@pytest.mark.ray
def test_outcomes_are_those_of_this_machine_though_a_node_dies(
    level: Level, breakable_cluster: TwoNodes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = EvaluateConfig(out=tmp_path, samples=tmp_path)
    there = dataclasses.replace(here, workers=1, engine=RayEngine(address=breakable_cluster.address))
    expected = dict(make_runner(here, LIMITS, level)(programs(600)))
    found = []
    for key, outcome in make_runner(there, LIMITS, level)(programs(600)):
        found.append((key, outcome))
        if len(found) == 100:
            breakable_cluster.kill_second()
    assert "lost a worker on node" in capsys.readouterr().err
    assert len(found) == 600
    assert dict(found) == expected
    assert {outcome.status for _, outcome in found} == {"passed", "failed", "timed_out"}


@pytest.mark.ray
def test_the_stage_writes_the_same_verdicts_from_a_cluster(cluster_address: str, tmp_path: Path) -> None:
    answers = tmp_path / "completions.jsonl"
    wrong = {1: "    return None\n", 2: "    while True:\n        pass\n", 3: "    exit()\n", 4: "", 5: "    )(\n"}
    write_records(
        answers,
        [
            Completion(
                task_id=problem.task_id,
                sample=sample,
                prompt=problem.prompt,
                raw="",
                completion=wrong[1 + number % 5] if sample and number < 20 else problem.canonical_solution,
                finish_reason="stop",
                new_tokens=0,
            )
            for number, problem in enumerate(load_humaneval().values())
            for sample in range(2)
        ],
    )
    here = EvaluateConfig(out=tmp_path / "here", samples=answers, timeout_s=2.0)
    there = dataclasses.replace(here, out=tmp_path / "there", engine=RayEngine(address=cluster_address))
    assert any("2 node(s)" in finding.message for finding in stage.check(there))
    stage.run(here)
    stage.run(there)
    verdicts = (there.out / "verdicts.jsonl").read_bytes()
    assert verdicts == (here.out / "verdicts.jsonl").read_bytes()
    assert verdicts.count(b'"outcome": "passed"') == 328 - 20
    journal = there.out / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    assert sorted(lines) == sorted((here.out / JOURNAL).read_bytes().splitlines(keepends=True))
    journal.write_bytes(b"".join(lines[:300]))  # as if this process had been killed
    stage.run(there)
    assert (there.out / "verdicts.jsonl").read_bytes() == verdicts
    assert journal.read_bytes().splitlines(keepends=True)[:300] == lines[:300]
    assert len(journal.read_bytes().splitlines()) == len(lines)
