"""The level is found by trying: real refusals by the kernel, layers that are missing, other users."""

import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from jaxwiz.sandbox import Program, SandboxError, sandbox_level
from jaxwiz.sandbox.client import Ladder, Server
from jaxwiz.sandbox.inside import confine, kernel, landlock, seccomp
from jaxwiz.sandbox.level import Level
from tests.sandbox.programs import CONTROL, LIMITS, PASSED, linux, root

pytestmark = linux

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
SCORE = f"""
import sys
sys.path.insert(0, {_PACKAGE_PARENT!r})
from jaxwiz.sandbox import Limits, Program, run_programs, sandbox_level
level = sandbox_level()
print(level.name, *level.layers, sep="|")
programs = [Program("def f(x): return x", "assert f(2) == 2", ("f",)), Program("import os; os.fork()"),
            Program("open('/etc/hostname')"), Program("open('x', 'w').write('x')"),
            Program("import threading; threading.Thread(target=int).start()")]
print(*(outcome.status for _, outcome in sorted(run_programs(enumerate(programs), Limits(), 1))))
"""


def score_in(command: list[str], **options: object) -> tuple[str, str]:
    """Returns the level line and the statuses that a harness prints which is started by `command`."""
    done = subprocess.run([*command, "-c", SCORE], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    level, statuses = done.stdout.splitlines()
    return level, statuses


def refuse(*numbers: int) -> None:
    """Puts this process under a filter that refuses some system calls, as containers do."""
    load, equal, answer = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 0)]
    for number in numbers:
        program += [(equal, 0, 1, number), (answer, 0, 0, seccomp.NOT_PERMITTED)]
    program.append((answer, 0, 0, seccomp.ALLOW))
    kernel.forbid_new_privileges()
    kernel.FilterProgram(b"".join(struct.pack("=HBBI", *instruction) for instruction in program)).install()


UNSHARE = {"x86_64": 272, "aarch64": 97}.get(platform.machine(), -1)
EXPECTED = "passed failed failed passed passed"


def test_this_machine_has_a_sandbox():
    level = sandbox_level()
    assert level.name in ("L0", "L1")
    assert {"landlock", "seccomp", "resource limits"} <= set(level.layers)
    assert (level.warning is None) == (level.name == "L0")


def test_where_the_kernel_refuses_namespaces_it_is_level_1():
    level, statuses = score_in([sys.executable], preexec_fn=lambda: refuse(UNSHARE))
    assert level.startswith("L1|")
    assert "namespaces" not in level
    assert statuses == EXPECTED


def test_where_the_kernel_has_no_landlock_programs_are_refused_by_name():
    done = subprocess.run(
        [sys.executable, "-c", SCORE],
        capture_output=True,
        text=True,
        preexec_fn=lambda: refuse(kernel.LANDLOCK_CREATE_RULESET),
    )
    assert done.returncode != 0
    assert "landlock: this kernel has none" in done.stderr.splitlines()[-1]
    assert "unsafe_no_sandbox" in done.stderr.splitlines()[-1]


@root
@pytest.mark.parametrize("refused", [(), (UNSHARE,)], ids=["L0", "L1"])
def test_an_ordinary_user_has_a_sandbox_too(refused: tuple[int, ...]):
    python = "/usr/bin/python3"
    known = subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False)
    if known.returncode:
        pytest.skip(f"no {python} of 3.11 or newer that another user could run")

    def become() -> None:
        os.setgroups([])
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
        if refused:
            refuse(*refused)

    level, statuses = score_in([python], preexec_fn=become, env={"TMPDIR": "/tmp"}, cwd="/")
    assert level.startswith("L1|" if refused else "L0|")
    assert statuses == EXPECTED


@root
def test_root_without_capabilities_has_a_sandbox_too():
    level, statuses = score_in([sys.executable], preexec_fn=kernel.drop_capabilities)
    assert level[:3] in ("L0|", "L1|")
    assert statuses == EXPECTED


@pytest.mark.parametrize("layer", ["landlock", "seccomp"])
def test_without_a_layer_programs_are_refused_unless_the_user_insists(layer: str):
    with pytest.raises(SandboxError, match=f"{layer}: switched off") as refusal, Server(0, Ladder(without=[layer])):
        pass
    assert "unsafe_no_sandbox" in str(refusal.value)
    with Server(0, Ladder(unsafe_no_sandbox=True, without=[layer])) as server:
        assert server.level.name == "L2"
        assert server.level.warning is not None
        assert layer in server.level.warning
        assert server.run(CONTROL, LIMITS) == PASSED
        assert server.run(Program("assert False"), LIMITS).status == "failed"


def test_a_layer_that_says_yes_but_does_not_hold_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landlock, "enter", lambda rules: None)
    confinement = confine.Confinement(str(tmp_path), None, [], alone=False)
    confinement.add_landlock(["/usr/lib"])
    confinement.add_seccomp()
    kernel_ready = os.fork()
    if kernel_ready == 0:
        try:
            kernel.forbid_new_privileges()
            confine._try(confinement)
        except confine.LayerError as error:
            os._exit(7 if str(error).startswith("landlock:") else 8)
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(kernel_ready, 0)[1]) == 7


def test_a_level_that_no_longer_holds_ends_the_run():
    ladder = Ladder()
    ladder.level = Level("L0", ("namespaces",))
    ladder.without = ["namespaces"]
    with pytest.raises(SandboxError, match="held before"), Server(0, ladder):
        pass


def test_package_folders_are_left_out_of_what_is_readable(tmp_path: Path):
    for name in ("python3.11/site-packages/secret", "python3.11/json", "python3/dist-packages/secret", "other"):
        (tmp_path / name).mkdir(parents=True)
    granted = dict(landlock._without_packages(str(tmp_path), depth=2))
    readable = {path.removeprefix(str(tmp_path)) for path, rights in granted.items() if rights & landlock._READ_FILE}
    assert readable == {"/python3.11/json", "/other"}
    hidden = {path.removeprefix(str(tmp_path)) for path in landlock.package_folders([str(tmp_path)])}
    assert hidden == {"/python3.11/site-packages", "/python3/dist-packages"}
