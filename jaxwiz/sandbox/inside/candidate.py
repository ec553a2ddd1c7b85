"""The candidate's process: runs untrusted source, then calls its functions as the checker asks.

Once the source runs, nothing in this process can be trusted, and nothing needs to be: it holds no test, no expected
value and no way to a verdict, only a pipe on which the checker reads plain data.

Programs that judge themselves run here too; their verdict travels behind a number that others can't guess by accident,
though a program written for it can find it.
"""

import builtins
import io
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

from jaxwiz.sandbox.inside import codec

PROGRAM_NAME = "<program>"
DETAIL_BYTES = 500
LENGTH = struct.Struct(">I")
# first byte of each message to the checker
READY, VALUE, RAISED, NOT_PLAIN, TOO_LONG = b"R", b"V", b"E", b"N", b"T"
TAKEN = b"."  # before any message: the candidate has read its source, and the checker may read on


class NoInput(io.StringIO):
    """Standard streams as in OpenAI's harness: what is written is thrown away, reading is an error."""

    def write(self, text: str) -> int:
        """Returns the number of characters, which are kept nowhere."""
        if not isinstance(text, str):
            raise TypeError(f"string argument expected, got {type(text).__name__!r}")
        return len(text)

    def read(self, *_: Any) -> str:
        """Raises OSError."""
        raise OSError("programs have no input")

    readline = readlines = __next__ = read  # type: ignore[assignment]

    def readable(self) -> bool:
        """Returns False."""
        return False


def silence() -> None:
    """Replaces this process's standard streams."""
    sys.stdin = NoInput()
    sys.stdout = sys.stderr = NoInput()


def run_alone(source: str) -> dict[str, str]:
    """Returns the verdict of a program that judges itself."""
    try:
        exec(compile(source, PROGRAM_NAME, "exec", dont_inherit=True), {})
        return {"status": "passed"}
    except BaseException as error:
        return {"status": "failed", "reason": reason_of(error), "detail": explain(error, source)}


def serve(source: str, names: list[str], requests: int, answers: int) -> None:
    """Runs the source, then answers calls until the checker is gone.

    Args:
      source: the candidate.
      names: functions that it must define.
      requests: descriptor to read calls from.
      answers: descriptor for results.
    """
    armed = [False]
    too_long = TimeoutError("the call took too long")

    def stop_call(*_: Any) -> None:
        if armed[0]:
            raise too_long

    signal.signal(signal.SIGPROF, stop_call)
    # Bound now, so that an honest candidate that redefines or patches one of these by accident is still served.
    encode, decode, read, write, timer, profile = (
        codec.encode, codec.decode, read_message, write_message, signal.setitimer, signal.ITIMER_PROF
    )  # fmt: skip
    namespace: dict[str, Any] = {}
    try:
        exec(compile(source, PROGRAM_NAME, "exec", dont_inherit=True), namespace)
        functions = [_defined(namespace, name) for name in names]
    except BaseException as error:
        write(answers, RAISED + _describe(error, source))
        return
    write(answers, READY)
    while True:
        message = read(requests)
        if message is None:
            return
        number, timeout_s, want_arguments, args, kwargs = decode(message)
        try:
            if timeout_s:
                armed[0] = True
                timer(profile, timeout_s)  # of CPU time: what this process waits for a core is not its fault
            result = functions[number](*args, **kwargs)
            answer = VALUE + encode([result, args] if want_arguments else result)
            armed[0] = False
        except codec.NotPlainDataError as error:
            armed[0] = False
            answer = NOT_PLAIN + str(error).encode("utf-8", "replace")
        except BaseException as error:
            armed[0] = False
            answer = TOO_LONG if error is too_long else RAISED + _describe(error, source)
        if timeout_s:
            timer(profile, 0)
        write(answers, answer)


def read_message(descriptor: int, most: int = codec.MAX_BYTES) -> bytes | None:
    """Returns the next message on a pipe, None at its end.

    Raises:
      ValueError: it claims to be longer than `most`.
    """
    data = os.read(descriptor, 1 << 16)
    while len(data) < LENGTH.size:
        more = os.read(descriptor, 1 << 16) if data else b""
        if not more:
            return None
        data += more
    (size,) = LENGTH.unpack_from(data)
    if size > most + 64:
        raise ValueError(f"a message of {size} bytes")
    if len(data) == LENGTH.size + size:
        return data[LENGTH.size :]
    parts, missing = [data[LENGTH.size :]], LENGTH.size + size - len(data)
    while missing > 0:
        more = os.read(descriptor, min(missing, 1 << 20))
        if not more:
            return None
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)[:size]


def write_message(descriptor: int, data: bytes) -> None:
    """Sends a message down a pipe."""
    view = memoryview(LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def reason_of(error: BaseException) -> str:
    """Returns the word of `Outcome.reason` for an exception."""
    kinds = ((AssertionError, "assertion"), (MemoryError, "memory"), (SystemExit, "exit"), (SyntaxError, "syntax"))
    return next((word for kind, word in kinds if isinstance(error, kind)), "exception")


def explain(error: BaseException, source: str, name: str = PROGRAM_NAME) -> str:
    """Returns why a program failed, in at most DETAIL_BYTES; its own exceptions may misbehave when printed."""
    try:
        text = f"{type(error).__name__}: {str(error)[:DETAIL_BYTES]}".rstrip(": \n")
        line, frame = 0, error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == name:
                line = frame.tb_lineno
            frame = frame.tb_next
        if line:
            text += f", line {line}: {source.splitlines()[line - 1].strip()}"
        return cut(text)
    except BaseException:
        return "an exception that cannot be printed"


def cut(text: str) -> str:
    """Returns a text of at most DETAIL_BYTES of UTF-8, lone surrogates replaced."""
    return text[:DETAIL_BYTES].encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")


def _defined(namespace: dict[str, Any], name: str) -> Callable[..., Any]:
    if name not in namespace:
        raise NameError(f"name {name!r} is not defined")
    return namespace[name]


def _describe(error: BaseException, source: str) -> bytes:
    """Returns what the checker needs to raise an exception itself: its builtin class, arguments and detail."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind]
    detail = explain(error, source)
    try:
        return codec.encode([kinds[0], list(error.args), detail])
    except BaseException:
        return codec.encode([kinds[0], [detail], detail])
