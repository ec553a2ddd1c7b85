"""One checker process for many programs: forked when it is first needed, and handed a program's pipes each time.

A checker runs trusted code only, and reads a candidate's plain data with a strict codec, so nothing of one program can
live on in it to judge the next; a fork for each program would only cost time. It is replaced all the same when a
program ended it, or kept it from an orderly verdict, when it has grown, and after MOST_PROGRAMS.

    server --socket: header, pipes--> checker        each program's candidate is a fresh fork of the server
    server <--------- verdicts ------ checker
"""

import _socket  # of `socket`, what costs no fork anything
import contextlib
import json
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jaxwiz.sandbox.inside import candidate, checker, clock, kernel
from jaxwiz.sandbox.inside.confine import Confinement
from jaxwiz.sandbox.inside.descriptors import keep_only, receive_part

MOST_PROGRAMS = 200
MOST_MEMORY_KIB = 256 << 10  # resident, at any time
_HEADER_BYTES = 1 << 16
_MOST_DESCRIPTORS = 3
_DESCRIPTOR = struct.Struct("i")


class Referee:
    """The server's end of a checker process, running or not.

    Args:
      confinement: what the process enters.
      control: the harness's socket, from which it reads its parts of requests.

    Attributes:
      pid: of the process; None: none is running.
      verdicts: descriptor to read its messages from.
    """

    def __init__(self, confinement: Confinement, control: int) -> None:
        self._confinement, self._control = confinement, control
        self.pid: int | None = None
        self.verdicts = -1
        self._schedstat: int | None = None
        self._limits: dict[str, Any] = {}

    def call(self, limits: Mapping[str, Any]) -> None:
        """Has a process ready that runs under these limits; their time is the server's business."""
        wanted = {name: value for name, value in limits.items() if name not in ("timeout_s", "cpu_s")}
        if self.pid is not None and wanted != self._limits:
            self.end()
        if self.pid is None:
            self._limits = wanted
            self._start()

    def hand(
        self,
        header: Mapping[str, Any],
        requests: int,
        answers: int,
        player: int,
        factor: float,
        deadline: clock.Deadline,
    ) -> None:
        """Gives the process a program to judge.

        Args:
          header: of the program's request.
          requests: descriptor on which the candidate reads calls.
          answers: descriptor of its answers.
          player: the candidate's process.
          factor: by how much limits on calls are longer on this machine.
          deadline: which counts the time of the process from now on.
        """
        wanted = ("calls", "checker_bytes", "data_bytes")
        message = json.dumps({**{name: header[name] for name in wanted}, "factor": factor}).encode()
        schedstat = clock.open_schedstat(self._confinement.processes, player)
        descriptors = [requests, answers, *([] if schedstat is None else [schedstat])]
        try:
            self._send(message, descriptors)
        except OSError:  # the kernel ended it for want of memory
            self.end()
            self._start()
            self._send(message, descriptors)
        finally:
            if schedstat is not None:
                os.close(schedstat)
        assert self.pid is not None
        deadline.watch(self.pid, clock.read_waited_s(self._schedstat))

    def end(self) -> None:
        """Ends the process, if it is running."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._socket.close()
        os.close(self.verdicts)
        if self._schedstat is not None:
            os.close(self._schedstat)
        self.pid = None

    def _send(self, message: bytes, descriptors: Sequence[int]) -> None:
        packed = b"".join(map(_DESCRIPTOR.pack, descriptors))
        self._socket.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])

    def _start(self) -> None:
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self.verdicts, verdicts_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                control, tasks, verdicts = keep_only(self._control, theirs.fileno(), verdicts_write)
                with contextlib.suppress(OSError):  # only Linux can; elsewhere it sees that its socket is closed
                    kernel.die_with_parent(signal.SIGKILL)
                self._confinement.enter(self._limits, with_box=False)
                candidate.silence()
                _judge_all(control, tasks, checker.Verdicts(verdicts))
            finally:
                os._exit(1)
        theirs.close()
        os.close(verdicts_write)
        self._schedstat = clock.open_schedstat(self._confinement.processes, self.pid)


def _judge_all(control: int, tasks: int, verdicts: checker.Verdicts) -> NoReturn:
    """Judges programs until the server is gone or the process has had enough."""
    socket = _socket.socket(fileno=tasks)
    room = _socket.CMSG_SPACE(_MOST_DESCRIPTORS * _DESCRIPTOR.size)
    for left in reversed(range(MOST_PROGRAMS)):
        message, ancillary, _, _ = socket.recvmsg(_HEADER_BYTES, room)
        if not message:
            break
        header = json.loads(message)
        descriptors = [number for (number,) in _DESCRIPTOR.iter_unpack(ancillary[0][2])]
        requests, answers, *schedstat = descriptors
        if os.read(answers, 1) != candidate.TAKEN:
            break  # it ended before it had read its part, which is still in the socket, before ours
        source = receive_part(control, header["checker_bytes"]).decode("utf-8", "surrogatepass")
        data = receive_part(control, header["data_bytes"])
        verdicts.ready()
        link = checker.Link(requests, answers, verdicts, schedstat[0] if schedstat else None, header["factor"])
        verdict = checker.check(source, header["calls"], data, link, verdicts)
        del source, data, link
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MOST_MEMORY_KIB
        if grown or not left or verdict.reason == "memory":
            verdicts.end(verdict)
        for descriptor in descriptors:
            os.close(descriptor)
        verdicts.give(verdict)
    os._exit(1)
