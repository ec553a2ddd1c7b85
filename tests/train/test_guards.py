"""Real signals and a real hang around a loop that only waits: what ends, when, with which code, and what is noted.

With a training loop inside: tests/faults.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxwiz.train.status import lives

ROOT = Path(__file__).resolve().parents[2]


def started(folder: Path, what: str, seconds: float) -> subprocess.Popen[str]:
    """Returns a process of `waiting_process` that listens to signals."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.train.waiting_process", str(folder), what, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, "listens" if what == "early" else "ready")
    return process


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
def test_a_signal_asks_for_an_orderly_end(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = started(tmp_path, "stop", 0.2)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert f"{number.name}: ends once a state is saved" in said
    assert f"told to stop ({number.name}); saved after step 7; the same command continues from there" in said
    (life,) = lives(tmp_path)
    assert life.step == 7 and life.end is not None and life.end["exit_code"] == code


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    process = started(tmp_path, "stop", 60)
    process.send_signal(signal.SIGTERM)
    wait_for(process, "stops")
    began = time.monotonic()
    process.send_signal(second)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 128 + second, said
    (life,) = lives(tmp_path)
    assert life.end is not None and life.end["reason"] == f"ended at once by a second signal, {second.name}"


def test_before_a_step_is_done_a_signal_ends_at_once_and_asks_for_a_restart(tmp_path: Path) -> None:
    process = started(tmp_path, "early", 60)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 42 and "was told to stop by SIGTERM before a step was done" in said, said
    (life,) = lives(tmp_path)
    assert life.step is None and life.end is not None and life.end["exit_code"] == 42


def test_a_step_without_end_is_named_with_the_stacks_and_ends(tmp_path: Path) -> None:
    began = time.monotonic()
    process = started(tmp_path, "hang", 60)
    _, said = process.communicate(timeout=30)
    assert 1.5 < time.monotonic() - began < 30
    assert process.returncode == 43, said
    assert "hangs in step 9: it has taken " in said
    assert "more than 0.5 s (intervals.faults.step_limit_s = 0.5), and waits for its batch; stacks in " in said
    assert "wait_for_what_never_comes" in (tmp_path / "process.log").read_text()
    (life,) = lives(tmp_path)
    assert life.end is not None and (life.end["exit_code"], life.end["step"]) == (43, 7)
