"""Processes that meet, exchange values, and are told which of them was lost, and why."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxwiz.sharding.agreement import AgreementError, config_facts, require_agreement
from jaxwiz.sharding.launch import Launch
from jaxwiz.sharding.processes import Processes, join

ROOT = Path(__file__).resolve().parents[2]


def start(count: int, *arguments: str, told: dict[int, dict[str, str]] | None = None) -> list[subprocess.Popen[str]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sharding.member", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "JAXWIZ_COORDINATOR": f"127.0.0.1:{port}",
                "JAXWIZ_PROCESSES": str(count),
                "JAXWIZ_PROCESS_ID": str(index),
                **(told or {}).get(index, {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def ends(members: list[subprocess.Popen[str]], timeout_s: float = 60) -> list[tuple[int, str, str]]:
    """Returns exit code, stdout and stderr of each."""
    found = []
    try:
        for member in members:
            out, err = member.communicate(timeout=timeout_s)
            found.append((member.returncode, out, err))
    finally:
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                member.kill()
    return found


def test_all_get_the_values_of_all_in_order() -> None:
    for code, out, err in ends(start(3, "gather", "0")):
        assert code == 0, err
        assert out == "['value of 0', 'value of 1', 'value of 2'] from 0\n"
        assert err == ""


@pytest.mark.parametrize("deed", ["killed", "forked"])
@pytest.mark.parametrize("culprit", [0, 2])
def test_a_killed_process_is_named_by_all_others_at_once(deed: str, culprit: int) -> None:
    began = time.monotonic()
    members = start(3, deed, str(culprit))
    pid = members[culprit].pid
    found = ends(members)
    assert time.monotonic() - began < 40
    for index, (code, _, err) in enumerate(found):
        if index == culprit:
            assert code == -signal.SIGKILL
        else:
            assert code == 1
            assert re.search(rf"process {culprit} of 3 \(.*, pid {pid}\) was lost: it ended without a word", err), err


def test_a_process_that_fails_tells_the_others_why() -> None:
    found = ends(start(3, "failing", "1"))
    assert [code for code, _, _ in found] == [1, 2, 1]
    assert found[1][2] == "learning_rate = -1: must be positive\n"
    for _, _, err in (found[0], found[2]):
        assert "process 1 of 3" in err and "failed: learning_rate = -1: must be positive; this run cannot go on" in err


@pytest.mark.multiprocess
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_host_that_falls_silent_is_named_within_a_minute(culprit: int) -> None:
    began = time.monotonic()
    members = start(3, "frozen", str(culprit))
    others = [member for index, member in enumerate(members) if index != culprit]
    try:
        for code, _, err in ends(others):
            assert code == 1
            assert f"process {culprit} of 3" in err and "was lost: nothing was heard" in err
        assert time.monotonic() - began < 60
    finally:
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(members[culprit].pid)], capture_output=True, text=True
        )
        for pid in (*map(int, children.stdout.split()), members[culprit].pid):
            os.kill(pid, signal.SIGKILL)
        members[culprit].communicate()


def test_processes_that_do_not_expect_each_other_say_so() -> None:
    for code, _, err in ends(start(2, "gather", "0", told={1: {"JAXWIZ_PROCESSES": "3"}})):
        assert code == 1
        assert "process 1 of 3 cannot join: process 0 expects 2" in err or "does not belong here" in err


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        members = start(1, "gather", "0", told={0: {"JAXWIZ_COORDINATOR": address}})
        ((code, _, err),) = ends(members)
    assert code == 1
    assert f"process 0 cannot listen at {address}" in err


def test_one_process_is_alone_and_waits_for_nobody() -> None:
    processes = join(Launch("Slurm job 7", "node1:61447", 1, 0))
    assert (processes.index, processes.count, processes.source) == (0, 1, "Slurm job 7")
    assert processes.gather("x") == ["x"] and processes.of_first("y") == "y"
    assert join().count == 1


class Recorded(Processes):
    """A process whose neighbours' values are known beforehand."""

    def __init__(self, others: list[list[str]]) -> None:
        super().__init__(0, 1 + len(others[0]), "test")
        self._others = others

    def gather(self, value: str) -> list[str]:
        return [value, *self._others.pop(0)]


def test_the_odd_one_out_is_named_with_what_differs() -> None:
    usual = '{"code": {"jax": "0.10.2"}, "config": {"mesh.data": "2", "seed": "0", "steps": "20"}}'
    odd = '{"code": {"jax": "0.10.1"}, "config": {"seed": "0", "steps": "10"}}'
    config = config_facts({"steps": 20, "mesh": {"data": 2}, "seed": 0})
    processes = Recorded([["same", "same", "other"], [usual, usual, odd]])
    with pytest.raises(AgreementError) as raised:
        require_agreement(processes, {"config": config, "code": {"jax": "0.10.2"}})
    assert str(raised.value).splitlines()[1:] == [
        "  process 3 of 4 differs in config: mesh.data = absent, elsewhere 2; steps = 10, elsewhere 20",
        "  process 3 of 4 differs in code: jax = 0.10.1, elsewhere 0.10.2",
    ]


def test_config_facts_are_its_leaves() -> None:
    assert config_facts({"a": {"b": [1, "x"]}, "c": None}) == {"a.b.0": "1", "a.b.1": '"x"', "c": "null"}
