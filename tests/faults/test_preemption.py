"""SIGTERM ends a run in order, wherever it is: saved at one step by all processes, with exit code 42, and continued."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jaxwiz.checkpoint import record
from jaxwiz.exit_codes import PREEMPTED
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.status import describe_run, lives
from tests.faults.lives import live, live_by_two

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("told", [0, 1])
def test_when_one_of_two_processes_is_told_both_save_at_the_same_step_and_end(
    whole: TrainConfig, tmp_path: Path, told: int
) -> None:
    stopped = dataclasses.replace(whole, out=tmp_path / "out", steps=400)
    moments = [("sigterm", 3, 0.0) if index == told else () for index in (0, 1)]
    ended = live_by_two(stopped, *moments)
    assert [each.returncode for each in ended] == [PREEMPTED, PREEMPTED], [each.stderr for each in ended]
    places = {re.findall(r"told to stop \((.*)\); saved after step (\d+) of 400", each.stderr)[0] for each in ended}
    ((by, step),) = places
    assert by == f"process {told} by SIGTERM" and 3 <= int(step) < 400
    (saved,) = record.read_records(record.epath.Path(stopped.out / "state"))
    assert (saved["step"], saved["processes"]) == (int(step), 2)
    assert record.find_damage(record.epath.Path(stopped.out / "state") / step) == []
    assert read_metrics(stopped.out / "metrics.jsonl")[-1]["step"] == int(step)
    assert "preempted, run the same command again" in describe_run(stopped.out)

    if told == 0:
        return
    again = live_by_two(stopped, ("sigterm", 1, 0.0), ())
    assert [each.returncode for each in again] == [PREEMPTED, PREEMPTED], [each.stderr for each in again]
    assert f"continues after step {step} of 400" in again[0].stderr


def test_a_run_stopped_within_a_heldout_loss_measures_it_later_and_ends_bit_for_bit(
    whole: TrainConfig, tmp_path: Path
) -> None:
    stopped = dataclasses.replace(whole, out=tmp_path / "out")
    died = live(stopped, "heldout", 1, 0)
    assert died.returncode == PREEMPTED and "stands after step 0" in died.stderr, died.stderr
    done = live(stopped)
    assert done.returncode == 0, done.stderr
    assert (stopped.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()
    first, second = lives(stopped.out)
    assert first.end is not None and first.end["exit_code"] == PREEMPTED
    assert second.end is not None and second.end["exit_code"] == 0
    assert json.loads((stopped.out / "summary.json").read_text())["steps"] == 14
