"""Batches on disk: what was put into each, and how far it has come, so that a killed run finds them again.

    <folder>/0001/requests.jsonl   the file that is sent
                  state.json       mark, file and batch id as soon as they are known, and the end
                  output.jsonl     what came back, errors.jsonl likewise

A batch is written whole before anything is sent. Its mark, a random word, goes along as metadata: a run that was killed
after it asked for a batch, and before it could note the answer, finds it on the server by that.
"""

import dataclasses
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from jaxwiz import files
from jaxwiz.llm.protocol import GenerationError

URL: Final = "/v1/chat/completions"


@dataclasses.dataclass
class BatchState:
    """How far a batch has come.

    Attributes:
      base_url: the endpoint that it is for.
      mark: a random word that names it in its metadata.
      file_id: of the sent file; "": not sent, or the server's answer never came.
      batch_id: "": not asked for, or the server's answer never came.
      status: the server's word for its end ("completed", "expired", "failed", "cancelled"), once what came back lies
        in the folder; "" before.
    """

    base_url: str
    mark: str
    file_id: str = ""
    batch_id: str = ""
    status: str = ""


class Batch:
    """One batch and its folder.

    Attributes:
      folder: where it lies.
      state: see `BatchState`; `save` makes a change durable.
      keys: the custom ids of its requests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.state = BatchState(**json.loads((folder / "state.json").read_bytes()))
            with open(folder / "requests.jsonl", "rb") as lines:
                self.keys = frozenset(json.loads(line)["custom_id"] for line in lines)
        except (OSError, ValueError, TypeError, KeyError):
            raise GenerationError(
                f"{folder}: not a batch's folder; restore it, or remove it to send its requests again"
            ) from None

    def save(self) -> None:
        """Makes the state durable."""
        files.write_text(self.folder / "state.json", json.dumps(dataclasses.asdict(self.state), indent=1) + "\n")

    def keep(self, status: str, output: bytes, errors: bytes) -> None:
        """Makes what came back durable, then the end."""
        files.write_bytes(self.folder / "output.jsonl", output)
        files.write_bytes(self.folder / "errors.jsonl", errors)
        self.state.status = status
        self.save()

    def replies(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (custom id, line) of all that came back; in no order, and only lines that are whole and ours."""
        seen = set()
        for name in ("output.jsonl", "errors.jsonl"):
            with open(self.folder / name, "rb") as lines:
                for line in lines:
                    reply = _parsed(line)
                    key = reply.get("custom_id")
                    if isinstance(key, str) and key in self.keys and key not in seen:
                        seen.add(key)
                        yield key, reply


class BatchStore:
    """All batches of a run, in the order in which they were made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        existing = sorted(folder.glob("[0-9]*")) if folder.is_dir() else []
        self._batches = [Batch(path) for path in existing]

    def newest(self, base_url: str) -> dict[str, Batch]:
        """Returns {key: the last batch for this endpoint that holds it}."""
        return {key: batch for batch in self._batches if batch.state.base_url == base_url for key in batch.keys}

    def add(self, base_url: str, lines: Iterable[bytes]) -> Batch:
        """Returns a new batch of these lines; it is on disk, and nothing of it has been sent."""
        path = self._folder / f"{len(self._batches) + 1:04d}"
        with files.atomic_folder(path) as partial:
            with open(partial / "requests.jsonl", "wb") as file:
                file.writelines(lines)
            state = BatchState(base_url, uuid.uuid4().hex)
            (partial / "state.json").write_text(json.dumps(dataclasses.asdict(state), indent=1) + "\n")
        self._batches.append(Batch(path))
        return self._batches[-1]


def request_line(key: str, body: dict[str, Any]) -> bytes:
    """Returns the line of a batch file that asks one request."""
    return json.dumps({"custom_id": key, "method": "POST", "url": URL, "body": body}).encode("ascii") + b"\n"


def split(lines: Iterable[bytes], most: int, most_bytes: int) -> Iterator[list[bytes]]:
    """Yields `lines` in lists of at most `most` lines and `most_bytes` bytes; a longer line stands alone."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and (len(part) == most or size + len(line) > most_bytes):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return reply if isinstance(reply, dict) else {}
