"""Recorded answers: the lines of a journal, written as calls are answered and read for a restart or a replay.

A line names the call by a hash of everything that decides its answer: model, prompt, seed and sampling parameters. The
prompt itself is not stored; a 250,000-row run would otherwise hold every parent several times.
"""

import dataclasses
import hashlib
import json
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult

_values_of = operator.attrgetter(*GenerationRequest.__slots__)


class RecordingError(UserError):
    """A recording that cannot be read; the message names file, line and remedy."""


@dataclasses.dataclass(frozen=True)
class RecordedAnswer:
    """One line of a recording.

    Attributes:
      key: `request_key` of the call.
      model: the generator's name.
      kind: what the call was for, for people who read the file.
      result: the answer.
    """

    key: str
    model: str
    kind: str
    result: GenerationResult

    def to_line(self) -> bytes:
        """Returns the line with its line break."""
        body = {"key": self.key, "model": self.model, "kind": self.kind, **_fields(self.result)}
        return json.dumps(body).encode("ascii") + b"\n"


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a recording holds.

    Attributes:
      answers: every whole line, in order.
      whole_bytes: length up to the end of the last whole line; what follows was torn off by a kill.
    """

    answers: list[RecordedAnswer]
    whole_bytes: int


def request_key(model: str, request: GenerationRequest) -> str:
    """Returns 64 hexadecimal digits that name a call: equal for equal model, prompt, seed and parameters, else not."""
    # ASCII, since what `repr` escapes of the rest differs between versions of Python; JSON would take twice as long
    return hashlib.sha256(ascii((model, *_values_of(request))).encode("ascii")).hexdigest()


def read_recording(path: Path) -> Recording:
    """Returns the answers in a recording; a last line without a line break is torn and left out.

    Raises:
      RecordingError: the file cannot be read, or a whole line is no recorded answer.
    """
    lines = list(recorded_lines(path))
    return Recording([answer for _, answer in lines if answer is not None], sum(length for length, _ in lines))


def recorded_lines(path: Path) -> Iterator[tuple[int, RecordedAnswer | None]]:
    """Yields (length in bytes, answer) of each whole line of a recording; None for an empty line.

    Raises:
      RecordingError: as `read_recording`.
    """
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    return
                yield len(line), parse_line(line, f"{path}:{number}") if line.strip() else None
    except OSError as error:
        raise RecordingError(f"{path}: cannot read the recording ({error.strerror}); check the path") from None


def _fields(result: GenerationResult) -> dict[str, Any]:
    """Returns what `dataclasses.asdict` does, which takes longer than all else that is done for a call's line."""
    return {name: getattr(result, name) for name in GenerationResult.__slots__}


def parse_line(line: bytes, where: str) -> RecordedAnswer:
    """Returns the answer in a line of a recording.

    Raises:
      RecordingError: it is none; names `where`, "file:line".
    """
    try:
        body = json.loads(line)
        key, model, kind = body.pop("key"), body.pop("model"), body.pop("kind")
        return RecordedAnswer(key, model, kind, GenerationResult(**body))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordingError(
            f"{where}: not a recorded answer; restore the file, or delete the lines from here on to ask for them again"
        ) from None
