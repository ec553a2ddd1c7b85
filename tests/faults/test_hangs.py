"""A step without end is told by its number and by who is to blame, with the stacks of all, and ends all processes."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.exit_codes import HUNG
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.status import describe_run
from tests.faults.lives import live, live_by_two

pytestmark = pytest.mark.faults


def limited(config: TrainConfig, out: Path) -> TrainConfig:
    faults = dataclasses.replace(config.intervals.faults, step_limit_s=4.0)
    return dataclasses.replace(config, out=out, intervals=dataclasses.replace(config.intervals, faults=faults))


def test_one_of_two_processes_hangs(whole: TrainConfig, tmp_path: Path) -> None:
    config = limited(whole, tmp_path / "out")
    ended = live_by_two(config, (), ("hang", 4, 0))
    assert [each.returncode for each in ended] == [HUNG, HUNG], [each.stderr for each in ended]
    logs = [(config.out / "logs" / f"process-{index}.log").read_text() for index in (0, 1)]
    assert "process 1 of 2" in logs[0] and "hangs in step 4" in logs[0] and "waits for its batch" in logs[0], logs[0]
    assert "wait_for_what_never_comes" in logs[1]
    assert "stacks of all threads" in logs[0] and "loop.py" in logs[0]
    assert "hung, run the same command again (exit code 43)" in describe_run(config.out)


def test_after_a_hang_the_same_command_goes_on(whole: TrainConfig, tmp_path: Path) -> None:
    config = limited(whole, tmp_path / "out")
    ended = live(config, "hang", 6, 0)
    assert ended.returncode == HUNG and "hangs in step 6" in ended.stderr, ended.stderr
    done = live(config)
    assert done.returncode == 0 and "continues after step 4 of 14" in done.stderr, done.stderr
    assert (config.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()
