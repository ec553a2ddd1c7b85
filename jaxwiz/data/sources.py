"""Conversations, read one by one from files; see `data/conversations.py` for the formats of their entries.

What a row is, is told by the row itself. A row that cannot be used becomes a `Reject` with its reason: it is never
repaired silently and never stops the reading; how many a run tolerates is the caller's matter. Memory stays flat
whatever the size of a file.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from jaxwiz.data.conversations import is_evolved, read_conversation
from jaxwiz.data.entries import Fault, SourceError, read_entries
from jaxwiz.text.messages import Message

__all__ = ["Reject", "Row", "SourceError", "read_source"]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One conversation: an instruction with its answer, or several turns.

    Attributes:
      file: the file it stands in.
      number: its line in JSONL, or its place in a JSON array or a Parquet file, from 1.
      messages: perhaps a system message, then user and assistant in turn; the last is the assistant's.
      root: id of the seed that it was evolved from, or empty if it was not evolved.
      is_root: whether it is that seed itself.
    """

    file: Path
    number: int
    messages: tuple[Message, ...]
    root: str = ""
    is_root: bool = False

    @property
    def question(self) -> Message:
        """The first message of the user: the instruction, with its input apart."""
        return next(message for message in self.messages if message.role == "user")

    @property
    def instruction(self) -> str:
        """The whole text of the first message of the user, its input included."""
        return self.question.text

    @property
    def output(self) -> str:
        """The last answer."""
        return self.messages[-1].content

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers, in order."""
        return tuple(message.content for message in self.messages if message.role == "assistant")


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """A row that was left out, or cut, and why.

    Attributes:
      file: the file it stands in.
      number: its line in JSONL, or its place in a JSON array, from 1.
      reason: a short phrase by which rejects are counted.
      detail: what exactly was found.
      kept: whether the row is in the data nevertheless, in a shortened form.
    """

    file: Path
    number: int
    reason: str
    detail: str
    kept: bool = False

    def to_json(self) -> str:
        """Returns the reject as one line of JSON, without the line break."""
        return json.dumps({**dataclasses.asdict(self), "file": self.file.as_posix()}, ensure_ascii=True)


def read_source(path: Path) -> Iterator[Row | Reject]:
    """Yields a row or a reject for each entry of a source file, in order.

    Args:
      path: JSONL, one object a line (blank lines are skipped); one JSON array of objects; or Parquet.

    Raises:
      SourceError: the file cannot be read, is empty, or breaks off.
    """
    for number, entry in read_entries(path):
        messages = read_conversation(entry)
        if isinstance(messages, Fault):
            yield Reject(path, number, messages.reason, messages.detail)
        elif is_evolved(entry):
            yield Row(path, number, messages, root=entry["root"], is_root=entry["id"] == entry["root"])
        else:
            yield Row(path, number, messages)
