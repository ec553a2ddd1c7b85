"""The entries of a source file, one by one in flat memory: lines of JSON, a JSON array of any size, or Parquet.

What a file is, is told by how it begins. A part that cannot be used by itself, such as a line that is no JSON, becomes
a `Fault` and the next entry follows; a file that leads nowhere is a `SourceError`. A JSON array is parsed entry by
entry out of a window of its text, and Parquet read in batches of rows.
"""

import codecs
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jaxwiz.files import UserError

_CHUNK_BYTES = 1 << 20
_MAX_ENTRY_CHARACTERS = 64 << 20  # of one entry of a JSON array: a broken one would else draw in the whole file
_PARQUET_MAGIC = b"PAR1"
_ROWS_PER_BATCH = 1024
# The columns that anything is made of; others, however large, are not even read from Parquet.
_COLUMNS = ("schema", "id", "root", "rejected", "instruction", "input", "output", "system", "messages", "conversations")


class SourceError(UserError):
    """A source that cannot be read at all; the message names the file, the rule and the remedy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Why an entry cannot be used.

    Attributes:
      reason: a short phrase by which faults are counted.
      detail: what exactly was found.
    """

    reason: str
    detail: str


def read_entries(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields (number, entry) from a file, in order: the parsed JSON or Parquet row, or a `Fault`.

    Args:
      path: JSONL, one object a line (blank lines are skipped); one JSON array of objects; or Parquet. The number is the
        line in JSONL, and the place in the others, from 1.

    Raises:
      SourceError: the file cannot be read, is empty, or breaks off.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(4096)
    except OSError as error:
        raise SourceError(f"{path}: cannot read ({error.strerror}); check the key 'sources'") from None
    if first.startswith(_PARQUET_MAGIC):
        return _parquet_entries(path)
    text = first.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise SourceError(f"{path}: is empty; give a file of instructions with answers")
    return _array_entries(path) if text.startswith(b"[") else _line_entries(path)


def _line_entries(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, _parse_line(line)


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault("invalid UTF-8", f"{error.reason} at byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return Fault("not JSON", str(error))


def _array_entries(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with open(path, "rb") as file:
        text = _ArrayText(file)
        text.next_character()  # the bracket
        text.place += 1
        try:
            more = text.next_character() != "]"
            while more:
                number += 1
                yield number, text.next_value()
                more = text.next_character() == ","
                if more:
                    text.place += 1
                elif text.next_character() != "]":
                    raise ValueError("no comma after it")
            text.place += 1
            if text.next_character():
                raise ValueError("the array ends there, but the file goes on")
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{path}: begins as a JSON array but does not parse at entry {number} ({error}); correct the file"
            ) from None


class _ArrayText:
    """A window of a JSON file's text, drawn along as it is parsed.

    Attributes:
      place: where the window's next character is.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.place = 0
        self._file = file
        self._text = ""
        # Bytes that are no UTF-8 become lone surrogates, so that they spoil no more than their entry.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._spoilt = False  # whether there has been such a byte
        self._json = json.JSONDecoder()

    def next_character(self) -> str:
        """Returns the next character that is no white space, without passing it; empty at the end of the file."""
        while True:
            while self.place < len(self._text):
                if self._text[self.place] not in " \t\r\n":
                    return self._text[self.place]
                self.place += 1
            if not self._draw():
                return ""

    def next_value(self) -> Any:
        """Returns the next JSON value and passes it, or a `Fault` in its place; raises ValueError if it is no JSON."""
        self.next_character()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self.place)
            except json.JSONDecodeError as error:
                if len(self._text) - self.place > _MAX_ENTRY_CHARACTERS or not self._draw():
                    around = self._text[max(error.pos - 20, 0) : error.pos + 20]
                    raise ValueError(f"{error.msg} near {around!r}") from None
                continue
            if end == len(self._text) and self._draw():
                continue  # a number might go on
            raw = self._text[self.place : end]
            self.place = end
            if self._spoilt and not _is_unicode(raw):
                return Fault("invalid UTF-8", "bytes of the entry are no UTF-8")
            return value

    def _draw(self) -> bool:
        """Takes in more of the file and lets go of what is passed; returns whether there was more."""
        left = self._text[self.place :]
        chunk = self._file.read(max(_CHUNK_BYTES, len(left)))  # twice as much each time, so that long entries are quick
        drawn = self._decoder.decode(chunk, final=not chunk)
        self._spoilt = self._spoilt or not _is_unicode(drawn)
        self._text = left + drawn
        self.place = 0
        return bool(chunk)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parquet_entries(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=columns or None):
                for entry in _batch_entries(batch):
                    number += 1
                    yield number, entry
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(
            f"{path}: begins as Parquet but cannot be read after row {number} ({error}); fetch or make it again"
        ) from None


def _batch_entries(batch: Any) -> Iterator[Any]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield Fault("invalid UTF-8", f"{error.reason} at byte {error.start} of a value")
