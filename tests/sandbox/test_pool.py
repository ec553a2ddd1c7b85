"""Programs get their outcomes; a pool hands out each once, stays flat, and leaves nothing behind however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.sandbox import Limits, Outcome, Program, run_program, run_programs
from jaxwiz.sandbox.client import Ladder, Server
from tests.sandbox.programs import ANSWER, CONTROL, LIMITS, PASSED, PASSED_ALONE, SHORT, judged, linux, servers_of

pytestmark = linux


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def check(server: Server, candidate: str, checker: str, calls: tuple[str, ...] = ("f",), data: bytes = b"") -> Outcome:
    return server.run(Program(candidate, checker, calls, data), LIMITS)


# candidate, checker, status, reason, how the detail ends
VERDICTS = {
    "passes": ("def f(x): return x", "assert f(1) == 1", "passed", "", ""),
    "wrong": (
        "def f(x): return x",
        "\nassert f(1) == 2",
        "failed",
        "assertion",
        "AssertionError, line 2: assert f(1) == 2",
    ),
    "raises": (
        "def f(x):\n    return x[0]",
        "f(1)",
        "failed",
        "exception",
        "TypeError: 'int' object is not subscriptable, line 2: return x[0]",
    ),
    "does not load": (
        "x = 1\n1 / 0",
        "pass",
        "failed",
        "exception",
        "ZeroDivisionError: division by zero, line 2: 1 / 0",
    ),
    "syntax": ("def f(:", "f()", "failed", "syntax", "SyntaxError: invalid syntax (<program>, line 1)"),
    "not there": ("def g(): pass", "pass", "failed", "exception", "NameError: name 'f' is not defined"),
    "memory": (
        "def f(x): return bytes(1 << 40)",
        "f(1)",
        "failed",
        "memory",
        "MemoryError, line 1: def f(x): return bytes(1 << 40)",
    ),
    "exits": (
        "def f(x): raise SystemExit(3)",
        "f(1)",
        "failed",
        "exit",
        "SystemExit: 3, line 1: def f(x): raise SystemExit(3)",
    ),
    "ends": ("import os\ndef f(x): os._exit(3)", "f(1)", "failed", "exit", "ended without a verdict (exit status 3)"),
    "killed": (
        "import os\ndef f(x): os.kill(os.getpid(), 9)",
        "f(1)",
        "failed",
        "crash",
        "ended without a verdict (killed by SIGKILL)",
    ),
    "object": (
        "class C: pass\ndef f(x): return C()",
        "f(1)",
        "failed",
        "not_plain_data",
        "returned an object of class 'C', which is not plain data",
    ),
    "checker fails": (
        "def f(x): return x",
        "import nothing_like_it",
        "failed",
        "exception",
        "No module named 'nothing_like_it', line 1: import nothing_like_it",
    ),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_verdict_says_why(name: str, server: Server):
    candidate, checker, status, reason, detail = VERDICTS[name]
    outcome = check(server, candidate, checker)
    assert (outcome.status, outcome.reason) == (status, reason), outcome
    assert outcome.detail.endswith(detail)
    assert not outcome.forgeable


def test_a_program_without_a_checker_judges_itself_and_that_is_said(server: Server):
    assert server.run(Program("assert 1 + 1 == 2"), LIMITS) == PASSED_ALONE
    outcome = server.run(Program("x = 1\nassert x == 2"), LIMITS)
    assert outcome == Outcome("failed", "AssertionError, line 2: assert x == 2", "assertion", forgeable=True)


def test_time_runs_out(server: Server):
    for program in (
        judged("while True: pass"),
        judged("import time\ndef double(x): time.sleep(9)"),
        Program("while 1: 0"),
    ):
        start = time.monotonic()
        outcome = server.run(program, Limits(timeout_s=0.3))
        assert (outcome.status, outcome.reason) == ("timed_out", "timeout")
        assert time.monotonic() - start >= 0.3
    assert server.run(CONTROL, LIMITS) == PASSED


def test_arguments_results_and_exceptions_cross(server: Server):
    candidate = """
def f(*args, **kwargs):
    return args, kwargs
def fail(kind, *args):
    raise {"V": ValueError, "K": KeyError, "O": Odd, "U": UnicodeDecodeError, "A": AssertionError}[kind](*args)
class Odd(LookupError):
    def __init__(self, text): super().__init__(text, object)
"""
    checker = """
assert f(1, [2.5, {3: (4,)}], a={"x"}) == ((1, [2.5, {3: (4,)}]), {"a": {"x"}})
for kind, args, expected in (("V", ["no"], ValueError), ("K", [("k", 1)], KeyError), ("O", ["odd"], LookupError),
                             ("U", ["utf-8", b"x", 0, 1, "bad"], UnicodeDecodeError), ("A", [], AssertionError)):
    try:
        fail(kind, *args)
    except expected as error:
        assert kind == "O" or error.args == tuple(args), error.args
    else:
        assert False
assert calls["f"] is f and set(calls) == {"f", "fail"} and data == b"data"
"""
    assert check(server, candidate, checker, ("f", "fail"), b"data") == PASSED


def test_arguments_can_be_seen_as_the_function_left_them(server: Server):
    candidate = "def f(items, more):\n    items.append(more)\n    return len(items)"
    checker = """
items = [1]
assert f(items, 2) == 2 and items == [1]
result, (left, more) = f.call([items], {"more": 2}, want_arguments=True)[0], f.call([items, 2], want_arguments=True)[1]
assert (result, left, more) == (2, [1, 2], 2)
"""
    assert check(server, candidate, checker) == PASSED


def test_a_call_has_its_own_time_limit_and_the_candidate_lives_on(server: Server):
    candidate = "import time\ndef f(n):\n    while n: pass\n    return 5\ndef g(): time.sleep(60)"
    checker = """
for _ in range(2):
    try:
        f.call([1], timeout_s=0.1)
    except TimeoutError:
        pass
    else:
        assert False
    assert f.call([0], timeout_s=0.1) == 5
for _ in range(2):
    try:
        g.call([], timeout_s=0.1)
    except TimeoutError as error:
        report(said=error)
    else:
        assert False
"""
    outcome = check(server, candidate, checker, ("f", "g"))
    assert outcome.status == "passed", outcome
    outcome = check(server, candidate, "f.call([1], timeout_s=0.1)")
    assert (outcome.status, outcome.reason) == ("timed_out", "timeout")


def test_reports_arrive_also_when_time_runs_out(server: Server):
    checker = "report(base=True, input=[1, 'x' * 1000], big=10**9999, odd='\\ud800')\nreport(base=False)\nf(1)"
    outcome = server.run(Program("def f(x):\n    while True: pass", checker, ("f",)), SHORT)
    assert outcome.status == "timed_out"
    assert outcome.failure is not None
    assert outcome.failure["base"] == "False"
    assert outcome.failure["input"].startswith("[1, 'xxx") and len(outcome.failure["input"]) == 500
    assert outcome.failure["big"] == "<int with too many digits to print>"
    assert outcome.failure["odd"] == "?"


def test_standard_streams_are_as_in_the_harness_that_verdicts_are_compared_with(server: Server):
    for source in ("input()", "import sys; sys.stdin.read()", "import sys; list(sys.stdin)", "print(b'x', file=1)"):
        assert server.run(Program(source), LIMITS).status == "failed"
    main = "if __name__ == '__main__': raise ValueError"
    assert server.run(Program(f"print('\\ud800', end='')\n{main}"), LIMITS) == PASSED_ALONE


def test_honest_programs_may_use_files_threads_recursion_and_memory(server: Server):
    source = """
import asyncio, os, random, sys, tempfile, threading
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x"); file.flush()
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/x", "w").close()
open("here", "w").write("x")
assert os.listdir(".") == ["here"]
seen = []
threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(seen) == 8
async def seven(): return 7
assert asyncio.run(seven()) == 7
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
assert depth(900) == 900
sys.setrecursionlimit(20000)
assert depth(9000) == 9000
assert len(bytearray(300 << 20)) == 300 << 20
assert __name__ == "builtins"
import numpy
assert numpy.arange(4).sum() == 6
"""
    assert server.run(Program(source), Limits(timeout_s=10.0)) == PASSED_ALONE


@pytest.mark.parametrize("without", [[], ["namespaces"]], ids=["L0", "L1"])
def test_numpy_can_be_imported_by_a_name_that_is_made_when_the_program_runs(without: list[str]):
    source = "name = 'num' + 'py'\nassert __import__(name).arange(4).sum() == 6"
    with Server(0, Ladder(without=without)) as server:
        assert server.run(Program(source), Limits(timeout_s=10.0)) == PASSED_ALONE
        assert server.run(Program(source), Limits(timeout_s=10.0)) == PASSED_ALONE


def test_the_order_of_sets_does_not_change_from_run_to_run(server: Server):
    checker = "report(order=f())"
    program = Program("def f(): return list({str(n) for n in range(50)})", checker, ("f",))
    orders = {server.run(program, LIMITS).failure["order"] for _ in range(2)}  # type: ignore[index]
    assert orders == {run_program(program, LIMITS).failure["order"]}  # type: ignore[index]


def test_programs_see_nothing_of_the_harness_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAXWIZ_TEST_SECRET", "hush")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")  # would switch asserts off
    assert run_program(Program("import os; assert 'JAXWIZ_TEST_SECRET' not in os.environ"), LIMITS).status == "passed"
    assert run_program(Program("assert False"), LIMITS).status == "failed"


def test_a_broken_server_is_replaced_and_the_program_run_again(server: Server):
    os.kill(servers_of(server._process.pid)[0], signal.SIGKILL)
    assert server.run(CONTROL, LIMITS) == PASSED
    server._process.kill()
    assert server.run(CONTROL, LIMITS) == PASSED


def test_pool_gives_every_outcome_once_and_draws_programs_as_needed():
    drawn = []

    def programs() -> Iterator[tuple[int, Program]]:
        for number in range(60):
            drawn.append(number)
            yield number, Program(f"assert {number} % 3")

    results = run_programs(programs(), LIMITS, workers=2)
    first = next(results)
    assert len(drawn) < 30, "a pool that reads all programs at once does not stay flat"
    outcomes = dict([first, *results])
    assert sorted(outcomes) == list(range(60))
    assert {key for key, outcome in outcomes.items() if outcome.status == "passed"} == {n for n in range(60) if n % 3}


def test_pool_ends_its_servers_when_the_consumer_leaves_and_passes_errors_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = servers_of(os.getpid())
    results = run_programs(((number, CONTROL) for number in range(1000)), LIMITS, workers=2)
    next(results)
    assert len(servers_of(os.getpid())) > len(before)
    results.close()
    assert not list(tmp_path.iterdir())
    assert servers_of(os.getpid()) == before

    def broken() -> Iterator[tuple[int, Program]]:
        yield 0, CONTROL
        raise RuntimeError("the source of programs failed")

    with pytest.raises(RuntimeError, match="source of programs"):
        list(run_programs(broken(), LIMITS, workers=2))


@pytest.mark.parametrize("without", [[], ["namespaces"]], ids=["L0", "L1"])
@pytest.mark.parametrize("source", ["while True: pass", "import time\nopen('x', 'w')\ntime.sleep(60)"])
def test_nothing_is_left_of_a_killed_harness(source: str, without: list[str], tmp_path: Path):
    script = (
        "from jaxwiz.sandbox import Limits, Program\nfrom jaxwiz.sandbox.client import Ladder, Server\n"
        f"with Server(0, Ladder(without={without!r})) as server:\n"
        "    server.run(Program('pass'), Limits())\n    print('ready', flush=True)\n"
        f"    server.run(Program({source!r}), Limits(timeout_s=60.0))\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert harness.stdout is not None
    assert harness.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 20
    while len(below := servers_of(harness.pid)) < (3 if not without else 2):
        assert time.monotonic() < deadline, "the program did not start"
    harness.kill()
    harness.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in below) or list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, "a process or a folder outlived the harness"
        time.sleep(0.02)


def test_the_control_answer_is_what_forgeries_are_measured_by(server: Server):
    assert server.run(judged(ANSWER), LIMITS) == PASSED
    assert server.run(judged(ANSWER.replace("2", "3")), LIMITS).status == "failed"
