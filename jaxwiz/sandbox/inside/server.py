"""The sandbox server: a small, clean process that forks for each program and reports what became of it.

    harness (client.py) --socket--> server --fork--> candidate <--pipes--> checker, of one or many programs (referee.py)

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
import importlib.machinery
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxwiz.sandbox.inside import box, candidate, checker, clock, confine
from jaxwiz.sandbox.inside.descriptors import keep_only, receive, receive_part
from jaxwiz.sandbox.inside.referee import Referee

HEADER = struct.Struct(">I")  # bytes of the JSON header
# What most programs use. Each module makes every fork dearer, by its memory; threading, random and hashlib by far most.
PRELOADED = "collections datetime decimal enum fractions functools itertools json math operator re string typing"
NONCE_BYTES = 8
_VERDICT_BYTES = 1 << 20  # most that is read for one program
_OUTPUT_BYTES = 64 << 20  # the same where a checker, which is trusted, may emit bytes
_PATIENCE_MS = 200
_LOOK_S = 0.02  # how often a box on disk is looked at


class _Ended(NamedTuple):
    """How a program's processes ended.

    Attributes:
      messages: what came down the verdict pipe.
      in_time: whether they ended, or gave a verdict, by themselves.
      overfull: whether its folder held too much.
    """

    messages: list[dict[str, Any]]
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
        _serve_all(control, confinement, config["packages"])
    finally:
        if not confinement.alone:
            box.clear(confinement.box)
            os.rmdir(confinement.box)
    os._exit(0)


def _serve_all(control: int, confinement: confine.Confinement, packages: Sequence[str]) -> None:
    for name in PRELOADED.split():
        importlib.import_module(name)
    for folder in packages:
        # Has Python list the folder that a package lies in, as programs can't: they then find it under any name.
        importlib.machinery.PathFinder.find_spec(os.path.basename(folder))
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "jaxwiz"]:
        del sys.modules[name]  # not there for programs
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN if confinement.alone else signal.SIG_DFL)
    factor = clock.machine_factor()
    os.dup2(1, 2)  # the null device; so far a pipe to the harness, for what goes wrong at the start
    _freeze()
    _send(control, {"layers": confinement.layers, "clock": confinement.processes is not None, "factor": factor})
    referee = Referee(confinement, control)
    while True:
        size = receive(control, HEADER.size)
        if size is None:
            return
        header = json.loads(receive(control, HEADER.unpack(size)[0]) or b"null")
        if header is None:
            return
        if sum(map(_load, header["modules"])):
            _freeze()
            referee.end()  # the next one starts with these modules
        reply = _Run(header, confinement, control, factor, referee).outcome()
        reply["clean"] = reply["clean"] and box.clear(confinement.box)
        _send(control, reply)


class _Run:
    """One program, from its forks to its outcome.

    Args:
      header: of the request.
      confinement: what its processes enter.
      control: the harness's socket; when it closes, the program ends at once.
      factor: how much slower than the reference this machine is.
      referee: judges programs that have a checker.
    """

    def __init__(
        self,
        header: dict[str, Any],
        confinement: confine.Confinement,
        control: int,
        factor: float,
        referee: Referee,
    ) -> None:
        self._header, self._confinement, self._control, self._factor = header, confinement, control, factor
        self._referee = referee
        self._limits = header["limits"]
        self._limits["cpu_s"] = 2 * clock.MOST_CPU * self._limits["timeout_s"] * factor + 1  # if we are gone
        self._split = header["checker_bytes"] > 0
        self._nonce = b"" if self._split else os.urandom(NONCE_BYTES).hex().encode()
        self._deadline = clock.Deadline(self._limits["timeout_s"], factor, confinement.processes)
        self._player = 0  # the process that runs the candidate
        self._wait_status: int | None = None  # of that process, once it has ended

    def outcome(self) -> dict[str, Any]:
        """Runs the program and returns the fields of its Outcome, and of this server.

        "clean" says whether the server is as before, "lost" that a process ended before the program began, for which
        only the machine can be to blame.
        """
        verdict_pipe = self._start_split() if self._split else self._start_alone()
        ended = self._await(verdict_pipe)
        messages: dict[str, Any] = {}
        report: dict[str, str] = {}
        for message in ended.messages:
            report.update(message.pop("report", {}))
            messages.update(message)
        if ended.in_time and messages.get("status") in (None, checker.CANDIDATE_LOST):
            self._await_end()
        self._end_player()
        if not self._split:
            os.close(verdict_pipe)
        elif "status" not in messages or "last" in messages:
            self._referee.end()
        self._end_strays()
        reply = self._judge(ended, messages)
        reply["failure"] = report or None
        reply["output"] = str(messages.get("output", "")) if self._split else ""
        # If the checker was ended before it had read its part, the rest is still in the socket.
        reply["clean"] = "ready" in messages or "status" in messages
        reply["lost"] = ended.in_time and not reply["clean"]
        return reply

    def _judge(self, ended: _Ended, messages: dict[str, Any]) -> dict[str, Any]:
        status, reason = messages.get("status"), messages.get("reason", "")
        code = self._wait_status or 0
        if status in ("passed", "failed", "timed_out"):
            return {"status": status, "reason": str(reason), "detail": candidate.cut(str(messages.get("detail", "")))}
        if ended.overfull:
            return {"status": "failed", "reason": "exception", "detail": "filled its folder"}
        died_of = os.WTERMSIG(code) if os.WIFSIGNALED(code) else None
        if not ended.in_time or died_of == signal.SIGXCPU:
            limit = f"{self._limits['timeout_s']:g} s"
            return {"status": "timed_out", "reason": "timeout", "detail": f"no verdict within {limit}"}
        if self._split and status != checker.CANDIDATE_LOST:
            return {"status": "failed", "reason": "crash", "detail": "the checker ended without a verdict"}
        word = "exit" if died_of is None else "crash"
        return {"status": "failed", "reason": word, "detail": f"ended without a verdict ({_describe(code)})"}

    def _read_message(self, line: bytes | bytearray) -> dict[str, Any]:
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
                source = receive_part(self._control, self._header["candidate_bytes"]).decode("utf-8", "surrogatepass")
                os.write(verdict_write, self._nonce + b'{"ready": true}\n')
                pipe, nonce = keep_only(verdict_write)[0], self._nonce
                self._enter()
                verdict = candidate.run_alone(source)
                os.write(pipe, nonce + json.dumps(verdict).encode() + b"\n")
                os._exit(0)
            finally:
                os._exit(1)
        os.close(verdict_write)
        self._watch(pid)
        return verdict_read

    def _start_split(self) -> int:
        """Forks the candidate, hands it to the referee, and returns the pipe for the verdict."""
        self._referee.call(self._limits)
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                source = receive_part(self._control, self._header["candidate_bytes"]).decode("utf-8", "surrogatepass")
                os.write(answers_write, candidate.TAKEN)
                requests, answers = keep_only(requests_read, answers_write)
                names = self._header["calls"]
                self._enter()
                del self
                candidate.serve(source, names, requests, answers)
                os._exit(0)
            finally:
                os._exit(1)
        self._watch(pid)
        self._referee.hand(self._header, requests_write, answers_read, pid, self._factor, self._deadline)
        for descriptor in (requests_read, requests_write, answers_read, answers_write):
            os.close(descriptor)
        return self._referee.verdicts

    def _enter(self) -> None:
        self._confinement.enter(self._limits)
        candidate.silence()

    def _watch(self, pid: int) -> None:
        self._player = pid
        self._deadline.watch(pid)

    def _await(self, verdict_pipe: int) -> _Ended:
        """Waits for a verdict, the end of all who could give one, the deadline, or the end of the harness."""
        poll = select.poll()
        poll.register(verdict_pipe, select.POLLIN | select.POLLHUP)
        poll.register(self._control, select.POLLHUP)
        messages: list[dict[str, Any]] = []
        received, left_bytes = bytearray(), _OUTPUT_BYTES if self._split else _VERDICT_BYTES
        while True:
            left_s = self._deadline.remaining_s()
            if left_s <= 0.0:
                return _Ended(messages, in_time=False)
            if not self._confinement.alone:
                left_s = min(left_s, _LOOK_S)
                if box.is_overfull(self._confinement.box):
                    return _Ended(messages, in_time=True, overfull=True)
            events = {descriptor for descriptor, _ in poll.poll(left_s * 1000 + 1)}
            if self._control in events:
                return _Ended([], in_time=False)
            if events:
                data = os.read(verdict_pipe, 1 << 16)
                received += data
                left_bytes -= len(data)
                if b"\n" in data:
                    *lines, received = received.split(b"\n")
                    messages += map(self._read_message, lines)
                if not data or left_bytes < 0 or (messages and "status" in messages[-1]):
                    return _Ended(messages, in_time=True)

    def _end_player(self) -> None:
        """Kills and reaps the process that runs the candidate."""
        if self._wait_status is None:
            for target in (self._player, -self._player):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(target, signal.SIGKILL)
            self._wait_status = os.waitpid(self._player, 0)[1]

    def _end_strays(self) -> None:
        """Kills and reaps what the program has started: nothing, unless there is no seccomp here."""
        while True:
            children = _children(self._confinement.processes)
            if children is None and self._confinement.alone:
                self._referee.end()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            strays = set(children or ()) - {self._referee.pid}
            for stray in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stray, signal.SIGKILL)
            for stray in strays:
                os.waitpid(stray, 0)
            if not strays:
                return

    def _await_end(self) -> None:
        """Learns how the candidate ended, which has closed its pipes: it is about to, unless it means to tease."""
        for _ in range(_PATIENCE_MS):
            ended, status = os.waitpid(self._player, os.WNOHANG)
            if ended:
                self._wait_status = status
                return
            time.sleep(0.001)


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


def _children(processes: int | None) -> list[int] | None:
    """Returns our child processes, among them those whose own parent has ended; None: this kernel doesn't say."""
    if processes is None:
        return None
    own = os.getpid()
    try:
        file = os.open(f"{own}/task/{own}/children", os.O_RDONLY, dir_fd=processes)
    except OSError:
        return None
    try:
        return [int(pid) for pid in os.read(file, 1 << 16).split()]
    finally:
        os.close(file)


def _describe(wait_status: int) -> str:
    if os.WIFSIGNALED(wait_status):
        return f"killed by {signal.Signals(os.WTERMSIG(wait_status)).name}"
    return f"exit status {os.WEXITSTATUS(wait_status)}"


def _send(control: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode()
    view = memoryview(HEADER.pack(len(data)) + data)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the harness is gone, as the next read finds
        while view:
            view = view[os.write(control, view) :]
