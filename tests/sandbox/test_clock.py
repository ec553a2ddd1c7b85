"""A busy machine changes no verdict: waiting for a core is not counted, computing and sleeping are."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jaxwiz.sandbox import Limits, Outcome, Program, machine_factor
from jaxwiz.sandbox.client import Server
from jaxwiz.sandbox.inside import clock
from tests.sandbox.programs import linux

pytestmark = linux


@contextlib.contextmanager
def one_busy_core(others: int) -> Iterator[None]:
    """Keeps this process, and what it starts, on one core, with `others` that compute there without end."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    burners = []
    try:
        for _ in range(others):
            burner = os.fork()
            if burner == 0:
                os.setsid()  # the kernel may share a core out by sessions
                while True:
                    pass
            burners.append(burner)
        yield
    finally:
        for burner in burners:
            os.kill(burner, signal.SIGKILL)
            os.waitpid(burner, 0)
        os.sched_setaffinity(0, before)


def schedstat_is_kept() -> bool:
    try:
        with open("/proc/self/schedstat") as file:
            return len(file.read().split()) == 3
    except OSError:
        return False


needs_schedstat = pytest.mark.skipif(not schedstat_is_kept(), reason="this kernel keeps no schedstat")

# About 0.25 s of computing by its own clock, whatever else runs.
COMPUTES = "import time\nwhile time.process_time() < 0.25: pass\ndef f(): return 1"
SLEEPS = "import time\ntime.sleep(5)\ndef f(): return 1"


@needs_schedstat
def test_a_starved_program_passes_and_a_sleeping_one_does_not():
    with one_busy_core(others=3), Server() as server:
        program, limits = Program(COMPUTES, "assert f() == 1", ("f",)), Limits(timeout_s=0.5)
        start = time.monotonic()
        assert server.run(program, limits) == Outcome("passed")
        assert time.monotonic() - start > 0.5, "the core was not busy, so nothing was shown"
        start = time.monotonic()
        assert server.run(Program(SLEEPS, "assert f() == 1", ("f",)), limits).status == "timed_out"
        assert time.monotonic() - start < 4.0


@needs_schedstat
def test_a_starved_call_passes_and_a_sleeping_one_does_not():
    candidate = """
import time
def compute():
    start = time.process_time()
    while time.process_time() - start < 0.15: pass
def sleep():
    time.sleep(4)
"""
    with one_busy_core(others=3), Server() as server:
        limits = Limits(timeout_s=5.0)
        call = "{}.call([], timeout_s=0.3)"
        names = ("compute", "sleep")
        assert server.run(Program(candidate, call.format("compute"), names), limits) == Outcome("passed")
        assert server.run(Program(candidate, call.format("sleep"), names), limits).reason == "timeout"


# Computes for 0.15 s in a process with one thread, and prints how long that took and how long of it was waiting.
MEASURES_ITSELF = """
import os, time
from jaxwiz.sandbox.inside import clock
processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
start, waited, cpu = time.monotonic(), clock.waited_s(processes, os.getpid()), time.process_time()
while time.process_time() - cpu < 0.15:
    pass
print(time.monotonic() - start, clock.waited_s(processes, os.getpid()) - waited)
"""


@needs_schedstat
def test_waiting_is_what_the_kernel_counted():
    with one_busy_core(others=1):
        command = [sys.executable, "-c", MEASURES_ITSELF]
        done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    wall, waited = map(float, done.stdout.split())
    assert waited > 0.05
    assert wall - waited == pytest.approx(0.15, rel=0.5)


def test_no_waiting_is_known_of_an_absent_process_or_without_proc():
    processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    assert clock.waited_s(processes, 2**22 + 1) == 0.0
    assert clock.waited_s(None, os.getpid()) == 0.0
    os.close(processes)


def test_a_deadline_counts_time_on_the_reference(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waited = {1: 0.0, 2: 0.0}
    monkeypatch.setattr(clock, "waited_s", lambda processes, pid: waited[pid])
    used = {1: 0.0, 2: 0.0}
    monkeypatch.setattr(clock, "cpu_s", lambda pid: used[pid])
    factor = [1.0]
    monkeypatch.setattr(clock, "machine_factor", lambda: factor[0])
    deadline = clock.Deadline(3.0, 1.0, None)
    deadline.watch(1)
    deadline.watch(2)
    assert deadline.remaining_s() == 3.0
    now[0] += 3.0
    assert deadline.remaining_s() == 0.0
    waited[1], waited[2] = 1.0, 0.5
    assert deadline.remaining_s() == pytest.approx(1.5)
    now[0] += 1.5
    assert deadline.remaining_s() == 0.0
    factor[0] = 2.0  # the machine turns out to be slow
    assert deadline.remaining_s() == pytest.approx(3.0)
    factor[0] = 1.0  # a limit never shrinks
    now[0] += 2.0
    assert deadline.remaining_s() == pytest.approx(1.0)
    used[1] = 6.0 * clock.MOST_CPU + 0.1
    assert deadline.remaining_s() == 0.0, "many threads"
    used[1], waited[1] = 0.0, 1000.0
    now[0] = 100.0 + 6.0 * clock.MOST_WALL
    assert deadline.remaining_s() == 0.0, "nothing runs for ever"


def test_the_machine_factor_is_never_below_one_and_follows_the_loop(monkeypatch: pytest.MonkeyPatch):
    assert machine_factor() >= 1.0
    monkeypatch.setattr(clock, "_loop", lambda: 5 * clock.REFERENCE_S)
    assert machine_factor() == pytest.approx(5.0)
    monkeypatch.setattr(clock, "_loop", lambda: clock.REFERENCE_S / 5)
    assert machine_factor() == 1.0
