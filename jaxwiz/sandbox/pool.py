"""Runs untrusted programs: N sandbox servers, each driven by a thread, programs pulled as they are needed.

    for key, outcome in run_programs([("a", "assert 1 + 1 == 2"), ("b", "while True: pass")]):
        print(key, outcome.status)

Programs are taken from an iterator and outcomes are handed out as they come, so memory stays flat for any number. A
server that a program has hurt is replaced and the program run once more, so that an honest program that shared its
server is not blamed.
"""

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from jaxwiz.files import UserError
from jaxwiz.sandbox.limits import Limits, Outcome
from jaxwiz.sandbox.server import HEADER

K = TypeVar("K")

# Any of these keeps a program from ending the harness by a signal.
PROTECTING_LAYERS = frozenset({"process namespace", "unprivileged user", "signal scope"})

START_TIMEOUT_S = 60.0
GRACE_S = 30.0  # beyond a program's own limit, for its server to end and remove what it left behind


class SandboxError(UserError):
    """The sandbox can't be started on this machine."""


class _ServerLostError(Exception):
    """A server ended or fell silent while it ran a program."""


def default_workers() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def isolation_layers() -> list[str]:
    """Returns what keeps programs from the machine here, found by starting a server; belongs in every result."""
    with _Server(0) as server:
        return ["separate process", "resource limits", *server.layers]


def run_program(source: str, limits: Limits = Limits()) -> Outcome:  # noqa: B008 - frozen
    """Returns what became of one program, run in a server of its own; for many, `run_programs` is faster."""
    with _Server(0) as server:
        return server.run(source, limits)


def run_programs(
    programs: Iterable[tuple[K, str]],
    limits: Limits = Limits(),  # noqa: B008 - frozen
    workers: int | None = None,
) -> Generator[tuple[K, Outcome], None, None]:
    """Yields (key, outcome) of every program, in the order in which they end.

    Args:
      programs: (key, source) pairs, drawn by at most `workers` threads, one at a time.
      limits: what each program may use.
      workers: programs at a time; None: as many as there are cores.

    Raises:
      SandboxError: no server can be started.
    """
    count = workers or default_workers()
    waiting, lock, stop = iter(programs), threading.Lock(), threading.Event()
    finished: queue.SimpleQueue[tuple[K, Outcome] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(4 * count)  # a slow consumer holds the workers back

    def work(number: int) -> None:
        try:
            with _Server(number) as server:
                while True:
                    room.acquire()
                    with lock:
                        program = None if stop.is_set() else next(waiting, None)
                    if program is None:
                        break
                    key, source = program
                    finished.put((key, server.run(source, limits)))
            finished.put(None)
        except BaseException as error:
            finished.put(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        at_work = count
        while at_work:
            result = finished.get()
            room.release()
            if result is None:
                at_work -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stop.set()
        for _ in threads:
            room.release()
        for thread in threads:
            thread.join()


class _Server:
    """A running sandbox server; a context manager that starts and ends it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.layers: list[str] = []

    def __enter__(self) -> "_Server":
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, source: str, limits: Limits) -> Outcome:
        """Returns what became of one program; a server that it breaks is replaced."""
        for _ in range(2):
            try:
                return self._run_once(source, limits)
            except _ServerLostError:
                self._end()
                self._start()
        return Outcome("failed", "broke its sandbox twice")

    def _run_once(self, source: str, limits: Limits) -> Outcome:
        header = json.dumps(dataclasses.asdict(limits)).encode()
        body = source.encode("utf-8", "surrogatepass")
        self._control.settimeout(limits.timeout_s + GRACE_S)
        try:
            self._control.sendall(HEADER.pack(len(header), len(body)) + header + body)
            reply = self._receive()
        except (OSError, EOFError) as error:
            raise _ServerLostError(str(error)) from error
        return Outcome(reply["status"], reply["detail"])

    def _start(self) -> None:
        self._box_root = tempfile.mkdtemp(prefix="jaxwiz-sandbox-")
        os.chmod(self._box_root, 0o711)  # an unprivileged program passes through to its own folder, and lists nothing
        ours, theirs = socket.socketpair()
        script = Path(__file__).with_name("server.py")
        environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",  # the order of a set can decide a verdict
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", str(script), str(theirs.fileno()), self._box_root, str(self._number)],
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the harness, which then ends its servers
            )
        errors = self._process.stderr
        assert errors is not None
        self._control = ours
        self._control.settimeout(START_TIMEOUT_S)
        try:
            self.layers = self._receive()["layers"]
        except (OSError, EOFError):
            self._end()
            words = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise SandboxError(
                f"the sandbox's process ({sys.executable} {script}) did not start: {words[-1] if words else 'silent'}; "
                "programs can't be run on this machine without it"
            ) from None
        finally:
            errors.close()

    def _end(self) -> None:
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # it ends by itself when its socket closes, unless it is stuck
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._box_root, ignore_errors=True)

    def _receive(self) -> dict[str, Any]:
        (size,) = struct.unpack(">I", self._receive_bytes(4))
        return json.loads(self._receive_bytes(size))

    def _receive_bytes(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._control.recv(count - len(data))
            if not chunk:
                raise EOFError("the sandbox server closed its socket")
            data += chunk
        return bytes(data)
