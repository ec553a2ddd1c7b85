"""The sandbox server: a small, clean process that forks for each program and reports what became of it.

    harness (client.py) --socket--> server --fork--> candidate <--pipes--> checker <--fork-- server

A fork of this process starts in about a millisecond with the standard library loaded, and, unlike a fork of the
harness, holds neither its memory nor its files. It never reads a program: the forks read their own part from the socket
themselves, so a candidate finds no test in its memory, nor anything of programs before it. The server keeps the
deadline, because a program can't be trusted to keep its own, and afterwards ends everything that the program started.

Only the checker has the pipe for verdicts. A program without a checker has it too, and passes if it runs to its end and
its process then sends this program's nonce: not by accident, but a program made for it can forge that.

Started by client.py in a bare interpreter. Request: HEADER, a JSON header, the candidate, the checker, the data.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import struct
import sys
import time
from typing import Any, NamedTuple

from jaxwiz.sandbox.inside import box, candidate, checker, clock, confine

HEADER = struct.Struct(">I")  # bytes of the JSON header
# What most programs use. Each module makes every fork dearer, by its memory; threading, random and hashlib by far most.
PRELOADED = "collections datetime decimal enum fractions functools itertools json math operator re string typing"
NONCE_BYTES = 8
_FIRST_FREE = 3  # file descriptor
_VERDICT_BYTES = 1 << 20  # most that is read for one program
_OUTPUT_BYTES = 64 << 20  # the same where a checker, which is trusted, may emit bytes
_PATIENCE_MS = 200
_LOOK_S = 0.02  # how often a box on disk is looked at


class _Ended(NamedTuple):
    """How a program's processes ended.

    Attributes:
      messages: whole lines that came down the verdict pipe.
      in_time: whether they ended, or gave a verdict, by themselves.
      overfull: whether its folder held too much.
    """

    messages: list[bytes]
    in_time: bool
    overfull: bool = False


def main(control_descriptor: int, config: dict[str, Any]) -> None:
    """Serves programs on the control socket until the harness closes it.

    Args:
      control_descriptor: the socket.
      config: the arguments of `confine.set_up`.
    """
    control = os.dup(control_descriptor)  # the lowest number, whatever the harness's was
    os.close(control_descriptor)
    try:
        confinement = confine.set_up(**config)
    except confine.LayerError as error:
        _send(control, {"missing": str(error)})
        return
    try:
        _serve_all(control, confinement)
    finally:
        if not confinement.alone:
            box.clear(confinement.box)
            os.rmdir(confinement.box)
    os._exit(0)


def _serve_all(control: int, confinement: confine.Confinement) -> None:
    for name in PRELOADED.split():
        importlib.import_module(name)
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "jaxwiz"]:
        del sys.modules[name]  # not there for programs
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN if confinement.alone else signal.SIG_DFL)
    factor = clock.machine_factor()
    os.dup2(1, 2)  # the null device; so far a pipe to the harness, for what goes wrong at the start
    _freeze()
    _send(control, {"layers": confinement.layers, "clock": confinement.processes is not None, "factor": factor})
    while True:
        size = _receive(control, HEADER.size)
        if size is None:
            return
        header = json.loads(_receive(control, HEADER.unpack(size)[0]) or b"null")
        if header is None:
            return
        if any(_load(name) for name in header["modules"]):
            _freeze()
        reply = _Run(header, confinement, control, factor).outcome()
        reply["clean"] = reply["clean"] and box.clear(confinement.box)
        _send(control, reply)


class _Run:
    """One program, from its forks to its outcome.

    Args:
      header: of the request.
      confinement: what its processes enter.
      control: the harness's socket; when it closes, the program ends at once.
      factor: how much slower than the reference this machine is.
    """

    def __init__(self, header: dict[str, Any], confinement: confine.Confinement, control: int, factor: float) -> None:
        self._header, self._confinement, self._control, self._factor = header, confinement, control, factor
        self._limits = header["limits"]
        self._limits["cpu_s"] = 2 * clock.MOST_CPU * self._limits["timeout_s"] * factor + 1  # if we are gone
        self._split = header["checker_bytes"] > 0
        self._nonce = b"" if self._split else os.urandom(NONCE_BYTES).hex().encode()
        self._deadline = clock.Deadline(self._limits["timeout_s"], factor, confinement.processes)
        self._statuses: dict[int, int] = {}

    def outcome(self) -> dict[str, Any]:
        """Runs the program and returns the fields of its Outcome, and "clean": whether this server is as before."""
        verdict_pipe = self._start_split() if self._split else self._start_alone()
        ended = self._await(verdict_pipe)
        os.close(verdict_pipe)
        messages: dict[str, Any] = {}
        report: dict[str, str] = {}
        for line in ended.messages:
            message = self._read_message(line)
            report.update(message.pop("report", {}))
            messages.update(message)
        if ended.in_time and messages.get("status") in (None, checker.CANDIDATE_LOST):
            self._await_end_of(self._deadline.pids[0])
        self._end_all()
        reply = self._judge(ended, messages)
        reply["failure"] = report or None
        reply["output"] = str(messages.get("output", "")) if self._split else ""
        # If the checker was ended before it had read its part, the rest is still in the socket.
        reply["clean"] = "ready" in messages or "status" in messages
        return reply

    def _judge(self, ended: _Ended, messages: dict[str, Any]) -> dict[str, Any]:
        status, reason = messages.get("status"), messages.get("reason", "")
        first = self._deadline.pids[0]
        if status in ("passed", "failed", "timed_out"):
            return {"status": status, "reason": str(reason), "detail": candidate.cut(str(messages.get("detail", "")))}
        if ended.overfull:
            return {"status": "failed", "reason": "exception", "detail": "filled its folder"}
        died_of = os.WTERMSIG(self._statuses[first]) if os.WIFSIGNALED(self._statuses.get(first, 0)) else None
        if not ended.in_time or died_of == signal.SIGXCPU:
            limit = f"{self._limits['timeout_s']:g} s"
            return {"status": "timed_out", "reason": "timeout", "detail": f"no verdict within {limit}"}
        if self._split and status != checker.CANDIDATE_LOST:
            return {"status": "failed", "reason": "crash", "detail": "the checker ended without a verdict"}
        code = self._statuses.get(first, 0)
        word = "exit" if died_of is None else "crash"
        return {"status": "failed", "reason": word, "detail": f"ended without a verdict ({_describe(code)})"}

    def _read_message(self, line: bytes) -> dict[str, Any]:
        """Returns a message down the verdict pipe, {} if it is not one: a program alone can write anything there."""
        if not line.startswith(self._nonce):
            return {}
        try:
            message = json.loads(line[len(self._nonce) :])
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    def _start_alone(self) -> int:
        """Forks a program that judges itself, and returns the pipe for its verdict."""
        verdict_read, verdict_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                source = self._take("candidate_bytes").decode("utf-8", "surrogatepass")
                os.write(verdict_write, self._nonce + b'{"ready": true}\n')
                pipe, nonce = _keep_only(verdict_write)[0], self._nonce
                self._enter(with_box=True)
                verdict = candidate.run_alone(source)
                os.write(pipe, nonce + json.dumps(verdict).encode() + b"\n")
                os._exit(0)
            finally:
                os._exit(1)
        os.close(verdict_write)
        self._deadline.pids = [pid]
        return verdict_read

    def _start_split(self) -> int:
        """Forks candidate and checker, and returns the pipe for the verdict."""
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        turn_read, turn_write = os.pipe()
        first = os.fork()
        if first == 0:
            try:
                source = self._take("candidate_bytes").decode("utf-8", "surrogatepass")
                os.write(turn_write, b".")
                requests, answers = _keep_only(requests_read, answers_write)
                names = self._header["calls"]
                self._enter(with_box=True)
                del self
                candidate.serve(source, names, requests, answers)
                os._exit(0)
            finally:
                os._exit(1)
        for descriptor in (requests_read, answers_write, turn_write):
            os.close(descriptor)
        verdict_read, verdict_write = os.pipe()
        second = os.fork()
        if second == 0:
            try:
                if os.read(turn_read, 1) != b".":
                    os._exit(1)
                source = self._take("checker_bytes").decode("utf-8", "surrogatepass")
                data = self._take("data_bytes")
                schedstat = _open_schedstat(self._confinement.processes, first)
                kept = [requests_write, answers_read, verdict_write, *([] if schedstat is None else [schedstat])]
                requests, answers, pipe, *rest = _keep_only(*kept)
                verdicts = checker.Verdicts(pipe)
                verdicts.ready()
                self._enter(with_box=False)
                link = checker.Link(requests, answers, verdicts, rest[0] if rest else None, self._factor)
                checker.check(source, self._header["calls"], data, link, verdicts)
            finally:
                os._exit(1)
        for descriptor in (requests_write, answers_read, turn_read, verdict_write):
            os.close(descriptor)
        self._deadline.pids = [first, second]
        return verdict_read

    def _take(self, part: str) -> bytes:
        """Returns a part of the request, which must be the next in the socket."""
        data = _receive(self._control, self._header[part])
        if data is None:
            os._exit(1)
        return data

    def _enter(self, with_box: bool) -> None:
        self._confinement.enter(self._limits, with_box)
        candidate.silence()

    def _await(self, verdict_pipe: int) -> _Ended:
        """Waits for a verdict, the end of all who could give one, the deadline, or the end of the harness."""
        poll = select.poll()
        poll.register(verdict_pipe, select.POLLIN | select.POLLHUP)
        poll.register(self._control, select.POLLHUP)
        received, most = bytearray(), _OUTPUT_BYTES if self._split else _VERDICT_BYTES
        while True:
            left_s = self._deadline.remaining_s()
            if left_s <= 0.0:
                return _Ended(bytes(received).split(b"\n")[:-1], in_time=False)
            if not self._confinement.alone:
                left_s = min(left_s, _LOOK_S)
                if box.is_overfull(self._confinement.box):
                    return _Ended(bytes(received).split(b"\n")[:-1], in_time=True, overfull=True)
            events = {descriptor for descriptor, _ in poll.poll(left_s * 1000 + 1)}
            if self._control in events:
                return _Ended([], in_time=False)
            if events:
                data = os.read(verdict_pipe, 1 << 16)
                received += data
                if not data or (b'"status"' in data and data.endswith(b"\n")) or len(received) > most:
                    return _Ended(bytes(received).split(b"\n")[:-1], in_time=True)

    def _end_all(self) -> None:
        """Kills the program's processes and everything that they started, and reaps them."""
        alone = self._confinement.alone
        for pid in self._deadline.pids:
            if pid not in self._statuses:
                for target in (pid, -pid):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(target, signal.SIGKILL)
        if alone:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        while True:
            try:
                self._reap(-1, 0)
            except ChildProcessError:
                return
            for orphan in [] if alone else _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)

    def _await_end_of(self, pid: int) -> None:
        """Learns how a process ended that has closed its pipes: it is about to, unless it means to tease."""
        for _ in range(_PATIENCE_MS):
            self._reap(pid, os.WNOHANG)
            if pid in self._statuses:
                return
            time.sleep(0.001)

    def _reap(self, pid: int, options: int) -> None:
        ended, status = os.waitpid(pid, options)
        if ended:
            self._statuses[ended] = status


def _keep_only(*descriptors: int) -> list[int]:
    """Closes all files but the standard ones, these and the rule sets, and returns their new, low numbers."""
    aside = confine.RULES_AT - 10
    high = [os.dup2(descriptor, aside + place, inheritable=False) for place, descriptor in enumerate(descriptors)]
    os.closerange(_FIRST_FREE, aside)
    low = [os.dup2(descriptor, _FIRST_FREE + place, inheritable=False) for place, descriptor in enumerate(high)]
    os.closerange(aside, confine.RULES_AT)
    return low


def _open_schedstat(processes: int | None, pid: int) -> int | None:
    """Returns a descriptor of a process's waiting time, for clock.read_waited_s."""
    if processes is None:
        return None
    try:
        return os.open(f"{pid}/schedstat", os.O_RDONLY, dir_fd=processes)
    except OSError:
        return None


def _load(name: str) -> bool:
    """Imports a module here, so that no program waits for it; returns whether that was new."""
    if name in sys.modules:
        return False
    try:
        importlib.import_module(name)
    except Exception:
        return False  # the program will see for itself
    return True


def _freeze() -> None:
    gc.collect()
    gc.freeze()  # a collection in a program then does not touch, and so copy, the pages shared with us


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


def _receive(control: int, count: int) -> bytes | None:
    """Returns that many bytes, None if the harness is done, or gone."""
    data = bytearray()
    while len(data) < count:
        chunk = os.read(control, min(count - len(data), 1 << 20))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _send(control: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode()
    view = memoryview(HEADER.pack(len(data)) + data)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the harness is gone, as the next read finds
        while view:
            view = view[os.write(control, view) :]
