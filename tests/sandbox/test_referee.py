"""One checker process judges many programs: nothing of one reaches the next, and it is replaced when it should be."""

import os
import signal
from collections.abc import Iterator

import pytest

from jaxwiz.sandbox import Limits, Program
from jaxwiz.sandbox.client import Ladder, Server
from jaxwiz.sandbox.inside.referee import MOST_MEMORY_KIB, MOST_PROGRAMS
from tests.sandbox.programs import CONTROL, LIMITS, PASSED, SHORT, linux, servers_of

pytestmark = linux

NAMES_ITSELF = "import os\nreport(pid=os.getpid())"


@pytest.fixture(scope="module", params=["L0", "L1"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(0, Ladder(without=["namespaces"] if request.param == "L1" else [])) as server:
        if server.level.name != request.param:
            pytest.skip(f"this machine offers no {request.param}: {server.level.missing}")
        yield server


def checker_of(server: Server, limits: Limits = LIMITS, checker: str = NAMES_ITSELF) -> str:
    """Returns the number of the process that judges a program now."""
    outcome = server.run(Program("def f(x): return x", checker, ("f",)), limits)
    assert outcome.status == "passed", outcome
    assert outcome.failure is not None
    return outcome.failure["pid"]


def test_one_process_judges_many_programs_and_keeps_nothing_of_them(server: Server):
    before = checker_of(server)
    leaves = "left = 1\nf(2)\ncalls['g'] = f\nreport(left=left)"
    assert server.run(Program("def f(x): return x", leaves, ("f",), b"secret"), LIMITS).status == "passed"
    finds = f"assert not {{'left', 'g', 'error'}} & {{*globals(), *calls}} and data == b''\n{NAMES_ITSELF}"
    assert server.run(Program("def f(x): raise ValueError", "f(1)", ("f",)), LIMITS).reason == "exception"
    assert checker_of(server, checker=finds) == before
    assert server.run(CONTROL, LIMITS).failure is None, "reports are those of one program"


# What a program does that costs the checker its place: candidate, checker.
ENDINGS = {
    "time runs out": ("def f(x):\n    while True: pass", "f(1)"),
    "the checker hangs": ("def f(x): pass", "while True: pass"),
    "the candidate ends": ("import os\ndef f(x): os._exit(0)", "f(1)"),
    "no plain data": ("def f(x): return object()", "try:\n    f(1)\nexcept BaseException: pass"),
    "the checker ends": ("def f(x): pass", "import os\nos._exit(0)"),
    "memory": ("def f(x): return x", "x = bytes(1 << 40)"),
    "the checker has grown": ("def f(x): return x", f"x = b'1' * {2 * MOST_MEMORY_KIB << 10}"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_checker_is_replaced(name: str, server: Server):
    limits = LIMITS if "grown" in name else SHORT  # a slow machine takes long to hand out so much memory
    before = checker_of(server, limits)
    candidate, checker = ENDINGS[name]
    outcome = server.run(Program(candidate, checker, ("f",)), limits)
    assert outcome.status == (
        "passed" if "grown" in name else "timed_out" if "time" in name or "hang" in name else "failed"
    )
    assert checker_of(server, limits) != before


def test_a_checker_is_replaced_after_many_programs_and_for_other_limits(server: Server):
    before = checker_of(server)
    assert checker_of(server, Limits(timeout_s=1.0)) == before, "time is the server's business"
    assert checker_of(server, Limits(memory_bytes=1 << 30)) != before
    before = checker_of(server)
    assert len({checker_of(server) for _ in range(MOST_PROGRAMS)}) == 2
    assert checker_of(server) != before


def test_a_checker_that_was_killed_is_replaced_without_harm(server: Server):
    checker_of(server)
    os.kill(servers_of(server._process.pid)[-1], signal.SIGKILL)
    assert server.run(CONTROL, LIMITS) == PASSED


def test_time_of_earlier_programs_is_not_counted(server: Server):
    """Four programs' checkers compute longer than any of them may."""
    computes = "import time\nwhile time.process_time() - start < 0.2: pass"
    for _ in range(4):
        program = Program("def f(x): return x", f"import time\nstart = time.process_time()\n{computes}", ("f",))
        assert server.run(program, Limits(timeout_s=0.3)).status == "passed"
    sleeps = Program("import time\ndef f(x): time.sleep(2)", "f(1)", ("f",))  # limits grow where a machine is slow
    assert server.run(sleeps, Limits(timeout_s=0.3)).status == "timed_out"


def test_answers_that_nobody_asked_for_reach_no_later_program(server: Server):
    """The candidate writes right answers for its successor into every pipe that it finds."""
    floods = """
import os, struct
def f(x):
    answer = b'V' + str(2 * x).encode()
    for descriptor in range(3, 64):
        try: os.write(descriptor, 20 * (struct.pack('>I', len(answer)) + answer))
        except OSError: pass
    return 2 * x
"""
    server.run(Program(floods, "f(2)", ("f",)), LIMITS)
    wrong = Program("def f(x): return 0", "assert f(2) == 4", ("f",))
    assert server.run(wrong, LIMITS).reason == "assertion"
    assert server.run(CONTROL, LIMITS) == PASSED


@pytest.mark.parametrize("without", ["seccomp", "landlock"])
def test_processes_of_a_program_end_with_it_even_without_a_sandbox(without: str):
    source = """
import os, time
def f(x):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
    return x
"""
    with Server(0, Ladder(unsafe_no_sandbox=True, without=[without])) as server:
        before = checker_of(server)
        assert server.run(Program(source, "assert f(1) == 1", ("f",)), LIMITS).status == "passed"
        assert len(servers_of(server._process.pid)) == 1, "the checker alone goes on"
        assert checker_of(server) == before
