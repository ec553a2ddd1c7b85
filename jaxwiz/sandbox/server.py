"""The sandbox server: a small, clean process that forks once per program and reports what became of it.

    harness (pool.py)  --socket-->  server  --fork-->  program

A fork of this process starts in a few milliseconds with the standard library loaded, and, unlike a fork of the harness,
holds neither its memory nor its files. The server keeps the deadline, because a program can't be trusted to keep its
own, and afterwards ends everything that the program started.

A program has passed if it ran to its end and its process then sent this program's nonce down a pipe that nothing else
uses: exiting early, printing "passed" or closing files doesn't pass by accident. A program written to cheat could still
find the nonce in its own process; holding that off needs the tests in another process than the answer.

Run by path in a fresh interpreter, `python -s -P server.py CONTROL_FD BOX_ROOT SERVER_NUMBER`; standard library only.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

PRELOADED = (
    "abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools hashlib "
    "heapq inspect itertools math numbers operator queue random re statistics string textwrap threading types typing "
    "unittest"
)
HEADER = struct.Struct(">II")  # bytes of the limits in JSON, bytes of the source
DETAIL_BYTES = 500
NONCE_BYTES = 8  # nonce, one letter and detail together stay below 512 bytes, which every pipe takes in one piece
SECONDS_BETWEEN_LOOKS = 0.02
PROGRAM_NAME = "<program>"
_VERDICT_FD = 3


class _Setting(NamedTuple):
    """How programs are kept apart on this machine.

    Attributes:
      user: who owns their folders; None: we do.
      give_up_rights: makes the calling process one without rights, for good.
      alone: whether every process that we can see but ourselves is a program's.
    """

    user: int | None
    give_up_rights: Callable[[], None]
    alone: bool


def main() -> None:
    """Serves programs on the control socket until the harness closes it."""
    control = socket.socket(fileno=int(sys.argv[1]))
    box_root = sys.argv[2]
    isolation = _import_neighbour("isolation")
    layers, user = isolation.isolate(box_root, int(sys.argv[3]))
    setting = _Setting(user, lambda: isolation.give_up_rights(layers, user), "process namespace" in layers)
    for name in PRELOADED.split():
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    _silence_standard_files()
    gc.collect()
    gc.freeze()  # a collection in a program then does not touch, and so copy, the pages shared with us
    _send(control, {"layers": layers})
    number = 0
    while True:
        limits_bytes, source_bytes = HEADER.unpack(_receive(control, HEADER.size))
        limits = json.loads(_receive(control, limits_bytes))
        source = _receive(control, source_bytes).decode("utf-8", "surrogatepass")
        number += 1
        box = os.path.join(box_root, str(number))
        status, detail = _serve(source, limits, box, setting, control)
        _remove(box)
        _send(control, {"status": status, "detail": detail})


def _serve(source: str, limits: dict[str, Any], box: str, setting: _Setting, control: socket.socket) -> tuple[str, str]:
    """Runs one program and returns its status and detail; afterwards none of its processes is left.

    Args:
      source: the program.
      limits: the fields of `limits.Limits`.
      box: folder to create for it.
      setting: how it is kept apart.
      control: the harness's socket; when it closes, the program ends at once.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    os.mkdir(box, 0o700)
    if setting.user is not None:
        os.chown(box, setting.user, setting.user)
    verdict_read, verdict_write = os.pipe()
    deadline = time.monotonic() + limits["timeout_s"]
    program = os.fork()
    if program == 0:
        try:
            os.setsid()
            os.dup2(verdict_write, _VERDICT_FD, inheritable=False)
            os.closerange(_VERDICT_FD + 1, 256)
            _confine(limits, box, setting)
            _run(source, nonce)
        finally:
            os._exit(1)
    os.close(verdict_write)
    message, wait_status = _await_message(verdict_read, control, program, deadline)
    os.close(verdict_read)
    wait_status = _end_all(program, setting.alone, wait_status)
    out_of_cpu = os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == signal.SIGXCPU
    if message is None or out_of_cpu:
        return "timed_out", f"no verdict within {limits['timeout_s']:g} s"
    if message == nonce + b"p":
        return "passed", ""
    if message.startswith(nonce + b"f"):
        return "failed", message[NONCE_BYTES + 1 :].decode("utf-8", "replace")
    if message:
        return "failed", "wrote to the verdict pipe"
    return "failed", f"ended without a verdict ({_describe(wait_status)})"


def _confine(limits: dict[str, Any], box: str, setting: _Setting) -> None:
    """Puts the current process, a fork that is about to be the program, under its limits and into its folder."""
    os.chdir(box)
    os.environ.update(HOME=box, TMPDIR=box)
    tempfile.tempdir = None
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the kernel ends the program rather than the harness
    cpu_s = int(2 * limits["timeout_s"]) + 2  # the wall deadline comes first; this one holds if we are gone
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_AS: limits["memory_bytes"],
    }
    if setting.alone or setting.user is not None:
        wanted[resource.RLIMIT_NPROC] = limits["processes"]  # elsewhere it would count the user's own processes too
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS has no working RLIMIT_AS
            resource.setrlimit(kind, (value, value))
    setting.give_up_rights()


def _run(source: str, nonce: bytes) -> NoReturn:
    """Runs the program in this process, sends its verdict, and ends the process without running exit handlers."""
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", errors="replace")
    try:
        code = compile(source, PROGRAM_NAME, "exec", dont_inherit=True)
        exec(code, {})  # like OpenAI's harness, so that `__name__` is "builtins" and main blocks stay idle
        verdict = b"p"
    except BaseException as error:
        verdict = b"f" + _explain(error, source)
    os.write(_VERDICT_FD, nonce + verdict)
    os._exit(0)


def _explain(error: BaseException, source: str) -> bytes:
    """Returns why a program failed, in at most DETAIL_BYTES; its own exceptions may misbehave when printed."""
    try:
        text = f"{type(error).__name__}: {str(error)[:DETAIL_BYTES]}".rstrip(": \n")
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == PROGRAM_NAME]
        if lines and lines[-1]:
            text += f", line {lines[-1]}: {source.splitlines()[lines[-1] - 1].strip()}"
        return text.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()
    except BaseException:
        return b"an exception that cannot be printed"


def _await_message(
    verdict: int, control: socket.socket, program: int, deadline: float
) -> tuple[bytes | None, int | None]:
    """Waits for the program's first message, its end, its deadline or the end of the harness.

    A verdict is one write, smaller than the pipe's atomic size, so one read holds all of it. The pipe may stay open
    after the program's end, in a process that it left behind, so its end is looked for as well.

    Returns:
      the message (empty: it ended without one; None: out of time, or nobody waits), and its wait status if it has been
      reaped.
    """
    poll = select.poll()
    poll.register(verdict, select.POLLIN | select.POLLHUP)
    poll.register(control, select.POLLHUP)
    wait_status: int | None = None
    while True:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            return None, wait_status
        pause_s = min(remaining_s, SECONDS_BETWEEN_LOOKS) if wait_status is None else 0.0
        ready = {descriptor for descriptor, _ in poll.poll(pause_s * 1000)}
        if control.fileno() in ready:
            return None, wait_status
        if ready:
            return os.read(verdict, select.PIPE_BUF), wait_status
        if wait_status is not None:
            return b"", wait_status
        reaped, status = os.waitpid(program, os.WNOHANG)
        wait_status = status if reaped else None


def _end_all(program: int, alone: bool, wait_status: int | None) -> int:
    """Kills the program and everything that it started, reaps them, and returns the program's wait status.

    Args:
      program: its process id, which is also its process group.
      alone: whether every process that we can see but ourselves is the program's.
      wait_status: that of the program, if it has been reaped; its id may then belong to another process.
    """
    targets = [-program] if wait_status is not None else [program, -program]
    for target in [*targets, -1] if alone else targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return wait_status or 0
        if pid == program:
            wait_status = status
        for orphan in [] if alone else _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)


def _children() -> list[int]:
    """Returns our child processes, among them those whose own parent has ended."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _describe(wait_status: int) -> str:
    if os.WIFSIGNALED(wait_status):
        return f"killed by {signal.Signals(os.WTERMSIG(wait_status)).name}"
    return f"exit status {os.WEXITSTATUS(wait_status)}"


def _remove(box: str) -> None:
    """Removes a program's folder, however deep or locked it left it, without following links."""
    try:
        shutil.rmtree(box)
    except (OSError, RecursionError):
        subprocess.run(["chmod", "-R", "u+rwx", box], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", box], stderr=subprocess.DEVNULL)


def _import_neighbour(name: str) -> Any:
    """Returns a module from this folder without leaving the folder, or the module's name, to programs."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    module = importlib.import_module(name)
    del sys.path[0], sys.modules[name]
    return module


def _silence_standard_files() -> None:
    """Points 0, 1 and 2 at the null device: what programs print is thrown away, so no amount of it can block."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def _receive(control: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = control.recv(min(count - len(data), 1 << 20))
        if not chunk:
            os._exit(0)  # the harness is done, or gone
        data += chunk
    return bytes(data)


def _send(control: socket.socket, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode()
    with contextlib.suppress(BrokenPipeError):  # the harness is gone, as the next read finds
        control.sendall(struct.pack(">I", len(data)) + data)


if __name__ == "__main__":
    main()
