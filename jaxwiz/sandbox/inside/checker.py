"""The checker's process: runs trusted tests against a candidate that lives in another process.

It alone holds tests, data and the pipe for the verdict. From the candidate it reads plain data (codec.py), so no object
of the candidate's, and no code, ever comes here. So the process may judge many programs, see referee.py.
"""

import base64
import builtins
import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from jaxwiz.sandbox.inside import clock, codec
from jaxwiz.sandbox.inside.candidate import (
    DETAIL_BYTES,
    NOT_PLAIN,
    RAISED,
    READY,
    TOO_LONG,
    VALUE,
    cut,
    explain,
    read_message,
    reason_of,
    write_message,
)

CHECKER_NAME = "<checker>"
CANDIDATE_LOST = "candidate"  # as a verdict's status: its process has ended, and the server knows how
MOST_REPORTED = 32  # names


class CallTimeoutError(TimeoutError):
    """A call took longer than its limit."""


class Verdict(NamedTuple):
    """What became of a program; the fields of `Outcome`, or the status CANDIDATE_LOST."""

    status: str
    detail: str = ""
    reason: str = ""


class Verdicts:
    """The way to the server: for each program reports, then one verdict."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._reported: set[str] = set()

    def ready(self) -> None:
        """Says that all input of a program has been read."""
        self._reported.clear()
        self._send({"ready": True})

    def report(self, **fields: object) -> None:
        """Hands strings to the harness; see program.py."""
        self._reported |= fields.keys()
        if len(self._reported) > MOST_REPORTED:
            raise ValueError(f"report: more than {MOST_REPORTED} names")
        self._send({"report": {name: cut(_text(value)) for name, value in fields.items()}})

    def emit(self, data: bytes) -> None:
        """Hands bytes to the harness; see program.py."""
        self._send({"output": base64.b64encode(data).decode("ascii")})

    def give(self, verdict: Verdict) -> None:
        """Sends the verdict; the process is ready for another program."""
        self._send(verdict._asdict())

    def end(self, verdict: Verdict) -> NoReturn:
        """Sends the verdict and ends the process."""
        self._send({**verdict._asdict(), "last": True})
        os._exit(0)

    def _send(self, message: dict[str, Any]) -> None:
        view = memoryview(json.dumps(message).encode() + b"\n")
        while view:
            view = view[os.write(self._pipe, view) :]


class Link:
    """The pipes to and from the candidate.

    Args:
      requests: descriptor to write calls to.
      answers: descriptor to read results from.
      verdicts: where to end the process if the candidate is lost.
      schedstat: descriptor of the candidate's waiting time, or None.
      factor: by how much limits on calls are longer on this machine.
    """

    def __init__(self, requests: int, answers: int, verdicts: Verdicts, schedstat: int | None, factor: float) -> None:
        self._requests, self._answers, self._verdicts = requests, answers, verdicts
        self._schedstat, self._factor = schedstat, factor
        self._stuck = False
        self._poll = select.poll()
        self._poll.register(answers, select.POLLIN)

    def await_candidate(self) -> None:
        """Returns when the candidate's source has run; raises what it raised."""
        self._open(self._receive(None))

    def ask(
        self, number: int, args: Sequence[Any], kwargs: Mapping[str, Any], timeout_s: float | None, want_arguments: bool
    ) -> Any:
        """Returns what function `number` returns, or raises what it raises."""
        if self._stuck:
            raise CallTimeoutError("the candidate is still busy with an earlier call")
        limit_s = (timeout_s or 0.0) * self._factor
        request = codec.encode([number, limit_s, want_arguments, list(args), dict(kwargs)])
        try:
            write_message(self._requests, request)
        except BrokenPipeError:
            self._verdicts.end(Verdict(CANDIDATE_LOST))
        return self._open(self._receive(limit_s or None))

    def _receive(self, limit_s: float | None) -> bytes:
        if limit_s is not None:
            self._wait(limit_s)
        try:
            message = read_message(self._answers)
        except ValueError as error:
            self._verdicts.end(Verdict("failed", cut(f"the candidate sent {error}"), "not_plain_data"))
        if message is None:
            self._verdicts.end(Verdict(CANDIDATE_LOST))
        return message

    def _wait(self, limit_s: float) -> None:
        """Returns when an answer begins; the candidate ends a call that computes too long, this one that sleeps."""
        start, waited_before = time.monotonic(), clock.read_waited_s(self._schedstat)
        limit_s = 1.1 * limit_s + 0.05  # the candidate's own alarm comes first, and leaves it able to go on
        left_s = limit_s
        while left_s > 0.0:
            if self._poll.poll(1000 * left_s + 1):
                return
            waited_s = clock.read_waited_s(self._schedstat) - waited_before
            left_s = limit_s - (time.monotonic() - start - waited_s)
        self._stuck = True
        raise CallTimeoutError("the call took too long")

    def _open(self, message: bytes) -> Any:
        """Returns the value in a message, or raises the exception in it."""
        kind, body = message[:1], message[1:]
        if kind == TOO_LONG:
            raise CallTimeoutError("the call took too long")
        fault = "the candidate sent something that is no answer"
        try:
            if kind == READY:
                return None
            if kind == VALUE:
                return codec.decode(body)
            if kind == RAISED:
                error: BaseException | None = _as_exception(*codec.decode(body))
            elif kind == NOT_PLAIN:
                error, fault = None, f"returned {body.decode('utf-8', 'replace')}"
            else:
                error = None
        except Exception as broken:
            error, fault = None, str(broken)
        if error is not None:
            raise error
        return self._verdicts.end(Verdict("failed", cut(fault), "not_plain_data"))


class Proxy:
    """A function of the candidate's, as the checker sees it."""

    def __init__(self, name: str, number: int, link: Link) -> None:
        self.__name__ = self.__qualname__ = name
        self._number, self._link = number, link

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the candidate's function returns."""
        return self._link.ask(self._number, args, kwargs, None, False)

    def call(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        want_arguments: bool = False,
    ) -> Any:
        """Returns the result, or (result, list of arguments as the function left them) if `want_arguments`.

        Raises:
          TimeoutError: it took longer than `timeout_s` seconds, of the kind that clock.py explains.
        """
        answer = self._link.ask(self._number, args, kwargs or {}, timeout_s, want_arguments)
        return tuple(answer) if want_arguments else answer


def check(source: str, names: Sequence[str], data: bytes, link: Link, verdicts: Verdicts) -> Verdict:
    """Returns the verdict of the tests; ends the process with it where the candidate leaves no other way.

    Args:
      source: the checker.
      names: the functions that it may call.
      data: its global `data`.
      link: the way to the candidate.
      verdicts: the way to the server.
    """
    try:
        link.await_candidate()
        proxies = {name: Proxy(name, number, link) for number, name in enumerate(names)}
        namespace = {**proxies, "calls": proxies, "report": verdicts.report, "emit": verdicts.emit, "data": data}
        exec(compile(source, CHECKER_NAME, "exec", dont_inherit=True), namespace)
    except CallTimeoutError as error:
        return Verdict("timed_out", str(error), "timeout")
    except BaseException as error:
        detail = getattr(error, "candidate_detail", None) or explain(error, source, CHECKER_NAME)
        return Verdict("failed", detail, reason_of(error))
    return Verdict("passed")


def _as_exception(kind: str, args: list[Any], detail: str) -> BaseException:
    """Returns an exception of the builtin class of that name; its `candidate_detail` is what a verdict says of it."""
    found = getattr(builtins, kind, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        found = Exception
    try:
        error = found.__new__(found, *args)
        error.args = tuple(args)
    except Exception:  # a class that is particular about its arguments
        error = Exception(*args)
    error.candidate_detail = cut(detail)  # type: ignore[attr-defined]
    return error


def _text(value: object) -> str:
    """Returns a string as it is, and anything else as it prints."""
    if isinstance(value, str):
        return value[:DETAIL_BYTES]
    try:
        return repr(value)
    except ValueError:
        return f"<{type(value).__name__} with too many digits to print>"
