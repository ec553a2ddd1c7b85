"""`jaxwiz status` tells the whole story of a folder, whatever state its run is in."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.checkpoint import record
from jaxwiz.cli import main
from jaxwiz.files import UserError
from jaxwiz.sharding.processes import Processes
from jaxwiz.train.history import History, git_state
from jaxwiz.train.status import describe_run, lives, sparkline

NOW = 1_800_000_000.0
SOFTWARE = {"versions": {"jax": "0.9"}, "git": {"commit": "0123456789abcdef", "changed": ["x.py"]}, "processes": 2}


def a_start(hours_ago: float, pid: int = 1) -> dict[str, Any]:
    return {"event": "start", "time": NOW - 3600 * hours_ago, "host": socket.gethostname(), "pid": pid, **SOFTWARE}


def an_end(code: int, reason: str) -> dict[str, Any]:
    return {"event": "end", "time": NOW, "host": "a", "pid": 1, "step": 4, "exit_code": code, "reason": reason}


def a_begin(step: int) -> dict[str, Any]:
    return {"event": "begin", "time": NOW, "step": step}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of ten steps of which six are done, that was preempted, then killed, and runs now."""
    metrics: list[dict[str, Any]] = [{"step": 0, "heldout_loss": 6.0}, {"step": 0, "benchmark": {"pass@1": 0.25}}]
    metrics += [{"step": step, "loss": 6.0 - step, "tokens": 100} for step in range(1, 7)]
    metrics[4] = {"step": 3, "tokens": 100, "skipped": {"loss": "nan", "rows": {}}}
    metrics[6]["spike"] = 7.0
    write_lines(tmp_path / "metrics.jsonl", metrics)
    history = [a_start(5), a_begin(0), an_end(42, "told to stop"), a_start(2), a_begin(2), a_start(1, os.getpid())]
    write_lines(tmp_path / "history.jsonl", [*history, a_begin(4)])
    progress = {"time": NOW - 3, "step": 7, "doing": "its batch", "steps": 10, "tokens_per_s": 50.0, "mfu": 0.4}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    write_lines(tmp_path / "corrupt-rows.jsonl", [{"shard": "a", "row": 1, "cause": "x", "process": 0}] * 2)
    for step in (2, 4):
        state = record.epath.Path(tmp_path / "state" / str(step))
        state.mkdir(parents=True)
        record.complete(state, {"step": step, "saved_at": NOW - 600, "metrics": {}, "processes": 1})
    (tmp_path / "state" / "3.damaged-1").mkdir()
    return tmp_path


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_running_run(folder: Path) -> None:
    told = describe_run(folder, NOW)
    assert told.startswith(f"{folder}: running\n")
    for part in (
        "[############--------] 6 of 10 steps (60.0%), 50 tokens/s, MFU 40.0%, 8 s to go",
        "; 3 s ago it waited for its batch",
        "5.0000 at step 1 █▇▄▂▁ 0.0000 at step 6",
        "held-out  6.0000 at step 0",
        "step 0: pass@1 25.0%",
        "1 step(s) that were not finite, the last at step 3; 1 spike(s) of the loss, kept, the last at step 5",
        "1 row(s) that could not be read",
        f"step 4, saved 10 min ago, 2 kept in {folder}/state; damaged and moved aside: 3.damaged-1",
        "3, 2 of them restarts",
        "2 process(es), from step 0: exit code 42: told to stop",
        "from step 2: killed or lost, no end noted",
        "from step 4: running",
        "jax 0.9; commit 0123456789ab with 1 changed files",
    ):
        assert part in told, told


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (an_end(0, "finished"), "finished"),
        (an_end(42, "x"), "preempted, run the same command again (exit code 42)"),
        (an_end(43, "x"), "hung, run the same command again (exit code 43)"),
        (an_end(2, "bad\nrow"), "ended (exit code 2)"),
    ],
)
def test_a_run_that_has_ended(folder: Path, event: dict[str, Any], told: str) -> None:
    with open(folder / "history.jsonl", "a") as file:
        file.write(json.dumps(event) + "\n")
    assert describe_run(folder, NOW).startswith(f"{folder}: {told}\n")


def test_a_run_that_was_killed(folder: Path) -> None:
    with open(folder / "history.jsonl", "a") as file:
        file.write(json.dumps(a_start(0.01, pid=2**22 + 1)) + '\n{"event": "be')  # no such process, and torn off
    assert "ended without a word, killed or lost; the last sign of life is 3 s ago" in describe_run(folder, NOW)
    assert "before training began: killed or lost" in describe_run(folder, NOW)


def test_a_run_that_says_nothing_for_long_is_not_running(folder: Path) -> None:
    assert "killed or lost; the last sign of life is 17 min ago" in describe_run(folder, NOW + 1000)


def test_the_command_and_a_folder_of_something_else(folder: Path, tmp_path_factory, capsys) -> None:
    assert main(["status", str(folder)]) == 0
    assert "restarts" in capsys.readouterr().out
    empty = tmp_path_factory.mktemp("empty")
    assert main(["status", str(empty)]) == 2
    assert "not the `out` of a train stage" in capsys.readouterr().err


def test_a_curve_is_as_wide_as_asked() -> None:
    assert sparkline([]) == "" and sparkline([1.0]) == "▁" and sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([float(value) for value in range(8)]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([float(value) for value in range(1000)], width=40)) == 40


def test_history_tells_each_start_and_why_it_ended(tmp_path: Path) -> None:
    with History(tmp_path, Processes()) as history:
        history.begin(5)
        history.step = 6
    with pytest.raises(UserError), History(tmp_path, Processes()):
        raise UserError("row 3 cannot be read")
    with pytest.raises(ZeroDivisionError), History(tmp_path, Processes()):
        raise ZeroDivisionError("what")
    first, second, third = lives(tmp_path)
    assert first.step == 5 and first.end is not None and second.end is not None and third.end is not None
    assert (first.end["exit_code"], first.end["reason"], first.end["step"]) == (0, "finished", 6)
    assert (second.end["exit_code"], second.end["reason"]) == (2, "row 3 cannot be read")
    assert (third.end["exit_code"], third.end["reason"]) == (1, "ZeroDivisionError: what")
    assert first.start["versions"].keys() >= {"jax", "orbax-checkpoint", "jaxwiz", "python"}


def test_the_state_of_the_source_is_that_of_its_own_checkout(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
