"""Instructions with answers, read from what users and the evolve stage have: evolved JSONL, seed JSONL, Alpaca JSON(L).

What a row is, is told by the row itself. A row that cannot be used becomes a `Reject` with its reason: it is never
repaired silently and never stops the reading; how many a run tolerates is the caller's matter.

Rows carry a lineage key, equal for a seed and all that was evolved from it, by which held-out data is split off.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError
from jaxwiz.records import EvolvedTask, Seed


class SourceError(UserError):
    """A source file that cannot be read at all; the message names the file, the rule and the remedy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One instruction with its answer.

    Attributes:
      file: the file it stands in.
      number: its line in JSONL, or its place in a JSON array, from 1.
      instruction: what is asked.
      input: further context, or empty.
      output: the answer.
      root: id of the seed that it was evolved from, or empty if it was not evolved.
      is_root: whether it is that seed itself.
    """

    file: Path
    number: int
    instruction: str
    input: str
    output: str
    root: str = ""
    is_root: bool = False


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
      path: JSONL, one object a line (blank lines are skipped), or one JSON array of objects.

    Raises:
      SourceError: the file cannot be read, is empty, or is a JSON array that does not parse.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise SourceError(f"{path}: cannot read ({error.strerror}); check the key 'sources'") from None
    if not first:
        raise SourceError(f"{path}: is empty; give a file of instructions with answers")
    entries = _array_entries(path) if first == b"[" else _line_entries(path)
    for number, entry in entries:
        yield _to_row(path, number, entry)


def lineage_keys(rows: Iterable[Row]) -> list[str]:
    """Returns for each row a key that is equal throughout its lineage.

    The key is the instruction of the lineage's seed, or the seed's id where the seed itself is not among the rows.
    Rows are of one lineage if they name the same root or begin from the same instruction, whatever file they are in.
    """
    rows = list(rows)
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def representative(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]
            node = parent
        return node

    nodes = []
    for row in rows:
        instruction = ("instruction", " ".join(row.instruction.split()))
        node = ("root", row.root) if row.root else instruction
        nodes.append(node)
        if row.is_root:
            # The smaller of the two leads, so an instruction leads its ids, and the order of rows changes nothing.
            first, second = sorted((representative(node), representative(instruction)))
            parents[second] = first
    return ["\0".join(representative(node)) for node in nodes]


def _line_entries(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line


def _array_entries(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        entries = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: begins as a JSON array but does not parse ({error}); correct the file") from None
    yield from enumerate(entries, start=1)


def _to_row(path: Path, number: int, entry: Any) -> Row | Reject:
    def reject(reason: str, detail: str) -> Reject:
        return Reject(path, number, reason, detail)

    if isinstance(entry, bytes):
        try:
            entry = json.loads(entry.decode("utf-8"))
        except UnicodeDecodeError as error:
            return reject("invalid UTF-8", f"{error.reason} at byte {error.start} of the line")
        except (ValueError, RecursionError) as error:
            return reject("not JSON", str(error))
    if not isinstance(entry, dict):
        return reject("not an object", f"{type(entry).__name__} instead of an object")
    schema = entry.get("schema", EvolvedTask.SCHEMA if "root" in entry else Seed.SCHEMA)
    if schema not in (EvolvedTask.SCHEMA, Seed.SCHEMA):
        return reject("unknown schema", f"{schema!r}; known: {EvolvedTask.SCHEMA}, {Seed.SCHEMA}")
    values = {"input": "", **entry}
    if values["input"] is None:  # common in published sets
        values["input"] = ""
    evolved = schema == EvolvedTask.SCHEMA
    for name in ("instruction", "input", "output", *(("id", "root") if evolved else ())):
        if name not in values:
            return reject("missing field", f"{name!r} is missing")
        if not isinstance(values[name], str):
            return reject("wrong type", f"{name!r} is {type(values[name]).__name__}; it must be a string")
        try:
            values[name].encode("utf-8")
        except UnicodeEncodeError as error:
            return reject("invalid Unicode", f"{name!r} holds half of a surrogate pair at character {error.start}")
    if not values["instruction"].strip():
        return reject("empty instruction", "'instruction' is blank")
    if not values["output"].strip():
        return reject("empty answer", "'output' is blank")
    if evolved and values.get("rejected"):
        return reject("eliminated", f"the evolve stage rejected it: {values['rejected']}")
    root = values["root"] if evolved else ""
    return Row(
        file=path,
        number=number,
        instruction=values["instruction"],
        input=values["input"],
        output=values["output"],
        root=root,
        is_root=evolved and values["id"] == root,
    )
