"""No program touches a file, reads a secret, makes a connection, forges a verdict or leaves anything behind.

After each one an honest program still passes in the same server. At L0 and, without namespaces, at L1.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.sandbox import Limits, Program
from jaxwiz.sandbox.client import Ladder, Server
from tests.sandbox.hostile.burdens import BURDENS
from tests.sandbox.hostile.escapes import ESCAPES
from tests.sandbox.hostile.forgeries import FORGERIES
from tests.sandbox.programs import CONTROL, LIMITS, PASSED, SHORT, judged, linux, servers_of, shared_hostile_programs

pytestmark = linux
WITHOUT = {"L0": (), "L1": ("namespaces",)}
# What namespaces have no part in is tried once.
AT_L1_TOO = ("endless loop", "sleeps", "memory", "small threads", "files", "a deep folder", "locked folders")
AT_L1_TOO += ("odd names", "links in circles", "a big file", "many big files", "a thread left behind")


@pytest.fixture(scope="module", params=WITHOUT)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXWIZ_TEST_SECRET", "hush")
        with Server(0, Ladder(without=WITHOUT[request.param])) as server:
            if server.level.name != request.param:
                pytest.skip(f"this machine offers no {request.param}: {server.level.missing}")
            yield server


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What programs may reach for: a folder with a secret that everyone may read, and two listening sockets."""
    witness = tmp_path_factory.mktemp("witness")
    for folder in (witness, *witness.parents[:-2]):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(0o777)
    secret = witness / "secret"
    secret.write_text("hush")
    secret.chmod(0o666)
    name = f"jaxwiz-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind("\0" + name)
        tcp.setblocking(False)
        abstract.setblocking(False)
        yield {
            "witness": str(witness),
            "secret": str(secret),
            "port": tcp.getsockname()[1],
            "abstract": name,
            "harness": os.getpid(),
            "sockets": (tcp, abstract),
        }


def state_of(outside: dict[str, object]) -> list[tuple[str, int, int, int, bytes]]:
    """Returns all that a program could have changed of the folder outside."""
    folder = Path(str(outside["witness"]))
    paths = [folder, *sorted(folder.rglob("*"))]
    found = []
    for path in paths:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((path.name, status.st_mode, status.st_uid, status.st_mtime_ns, content))
    return found


def test_servers_run_at_both_levels_on_this_machine(server: Server):
    assert server.run(CONTROL, LIMITS) == PASSED


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_held(name: str, server: Server, outside: dict[str, object]):
    before = state_of(outside)
    source = ESCAPES[name].format(**outside)
    for program in (judged(source), Program(source)):
        outcome = server.run(program, LIMITS)
        assert outcome.status == "failed", outcome
        assert outcome.reason in ("exception", "assertion", "exit"), outcome
    assert state_of(outside) == before
    for listening in outside["sockets"]:  # type: ignore[attr-defined]
        with pytest.raises(BlockingIOError):
            listening.accept() if listening.type == socket.SOCK_STREAM else listening.recv(9)
    assert server.run(CONTROL, LIMITS) == PASSED


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_held(name: str, server: Server):
    outcome = server.run(judged(FORGERIES[name]), SHORT)
    assert outcome.status in ("failed", "timed_out"), outcome
    assert outcome.reason
    assert not outcome.forgeable
    assert len(outcome.detail.encode()) <= 500
    assert server.run(CONTROL, LIMITS) == PASSED


@pytest.mark.parametrize(
    ("server", "name"),
    [("L0", name) for name in BURDENS] + [("L1", name) for name in AT_L1_TOO],
    indirect=["server"],
)
def test_burdens_are_borne(name: str, server: Server):
    source, expected = BURDENS[name]
    outcome = server.run(judged(source), SHORT if "timed_out" in expected else LIMITS)
    assert outcome.status in expected, outcome
    assert len(outcome.detail.encode()) <= 500
    assert server.run(CONTROL, LIMITS) == PASSED
    inner = server.level.name == "L0"
    assert len(servers_of(server._process.pid)) <= inner + 1, "only the server's inner process and its checker go on"
    assert server.run(Program("import os\nassert os.listdir('.') == []"), LIMITS).status == "passed"


def test_shared_hostile_programs_are_held(server: Server, tmp_path: Path):
    from jaxwiz.problems.humaneval import load_humaneval

    problem = load_humaneval()["HumanEval/0"]
    name = problem.entry_point
    checker = f"{problem.prompt}\n{name} = calls[{name!r}]\n{problem.test}\ncheck({name})"
    rows = shared_hostile_programs()
    control = next(row["completion"] for row in rows if row["name"] == "control_correct")
    missed = []
    for row in rows:
        limits = LIMITS if row["name"] == "control_slow_1s" or "timeout" not in row["expect"] else Limits(timeout_s=0.3)
        outcome = server.run(Program(problem.prompt + row["completion"], checker, (name,)), limits)
        status = "timeout" if outcome.status == "timed_out" else outcome.status
        after = server.run(Program(problem.prompt + control, checker, (name,)), LIMITS)
        if status not in row["expect"] or after != PASSED:
            missed.append((row["name"], row["expect"], outcome, after))
    assert not missed
