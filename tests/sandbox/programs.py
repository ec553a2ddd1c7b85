"""Programs that tests of the sandbox share, and where their traces would show."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.sandbox import Limits, Outcome, Program

LIMITS = Limits(timeout_s=2.0)
SHORT = Limits(timeout_s=0.5)
PASSED = Outcome("passed")
PASSED_ALONE = Outcome("passed", forgeable=True)

# A right answer, and tests that only a right answer passes.
ANSWER = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\nassert double('a') == 'aa'\nassert double([1]) == [1, 1]"
WRONG = "def double(x):\n    return x\n"


def judged(candidate: str) -> Program:
    """Returns a program whose tests are in a process of their own."""
    return Program(candidate, TESTS, ("double",))


CONTROL = judged(ANSWER)


def processes_named(mark: str) -> list[bytes]:
    """Returns the command lines that hold `mark`."""
    return [line for line in command_lines() if mark.encode() in line]


def command_lines() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield process.read_bytes()
        except OSError:
            continue


def servers_of(harness: int) -> list[int]:
    """Returns the processes below a harness, and theirs."""
    found, frontier = [], [harness]
    while frontier:
        parent = frontier.pop()
        for process in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = process.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(process.parent.name))
                frontier.append(found[-1])
    return found


def shared_hostile_programs() -> list[dict[str, Any]]:
    """Returns the rows of the shared file of hostile programs, or skips."""
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "hostile-programs.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(path.parents[3])} beside the repository")
    return [json.loads(line) for line in path.read_text().splitlines()]


linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to become another user")
