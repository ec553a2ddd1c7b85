"""The typed records that stages hand to each other, one JSON object a line, each naming its schema.

A line without "schema" is taken as the current version (users' own files); another version is an error. A field added
later has a default, so that older files of the same version read; anything else needs a new version. Unknown keys are
errors in our own files and ignored in users' seeds, which often carry extra columns.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from jaxwiz.files import UserError, atomic_file


class RecordError(UserError):
    """A record file that cannot be used: the message names file, line, value, rule and remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What all records share: a schema name and JSON in and out."""

    SCHEMA: ClassVar[str]
    ALLOWS_EXTRA_KEYS: ClassVar[bool] = False

    def to_json(self) -> str:
        """Returns the record as one line of JSON, keys in declaration order, without the line break."""
        return json.dumps({"schema": self.SCHEMA, **dataclasses.asdict(self)}, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seed(Record):
    """An instruction to evolve, with its known answer if there is one."""

    SCHEMA: ClassVar[str] = "jaxwiz.seed.v1"
    ALLOWS_EXTRA_KEYS: ClassVar[bool] = True
    instruction: str
    input: str = ""
    output: str = ""
    id: str = ""  # empty: the reader names it by line, "seed-00012"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolvedTask(Record):
    """An instruction with its answer and where it came from; rejected ones keep the reason."""

    SCHEMA: ClassVar[str] = "jaxwiz.evolved_task.v1"
    id: str
    instruction: str
    input: str
    output: str
    root: str  # id of the seed this lineage began with; seeds name themselves
    parent: str  # id of the task this was evolved from; empty for a seed
    operation: str  # name of the evolution operation; "seed" for a seed
    round: int  # 0 for a seed, then 1, 2, ...
    attempt: int  # how often this parent had been tried before in earlier rounds
    rejected: str = ""  # elimination rule that rejected it; empty: kept
    difficulty: int = 0  # a judge's score, 1 to 10; 0: nobody asked, or the reply held no score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion(Record):
    """One generated answer to one benchmark task."""

    SCHEMA: ClassVar[str] = "jaxwiz.completion.v1"
    task_id: str
    sample: int  # 0 .. n-1 within a task
    prompt: str  # the full prompt that the model saw
    raw: str  # the model's text, untouched
    completion: str  # the code extracted from `raw`, to be appended to the task's own prompt
    finish_reason: str  # "stop" or "length"; empty: not recorded
    new_tokens: int
    whole_program: bool = False  # `completion` is a program by itself, not to be appended to anything


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict(Record):
    """What running one completion against its task's tests showed."""

    SCHEMA: ClassVar[str] = "jaxwiz.verdict.v1"
    system: str  # label of the system that wrote the completion
    task_id: str
    sample: int
    outcome: str  # "passed", "failed" or "timed_out"
    detail: str  # why, at most 500 bytes
    base_outcome: str = ""  # the same for the base tests alone; empty: the benchmark has no plus tests
    reason: str = ""  # one word: "assertion", "exception", "exit", "crash", "timeout", "memory", "empty", ...
    input: str = ""  # the first input that failed, and what was wanted and returned, each at most 500 bytes
    expected: str = ""
    actual: str = ""
    forgeable: bool = False  # the program could have written its own verdict: its tests could not be split from it


R = TypeVar("R", bound=Record)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Writes `records` to `path` as JSONL, atomically, and returns how many."""
    count = 0
    with atomic_file(path) as partial, open(partial, "wb") as file:
        for record in records:
            # Models and programs do write lone surrogates. They have no UTF-8, but "\ud800" is their JSON.
            file.write((record.to_json() + "\n").encode("utf-8", "backslashreplace"))
            count += 1
    return count


def read_records(path: Path, record_type: type[R]) -> Iterator[R]:
    """Yields the records of a JSONL file in order.

    Raises:
      RecordError: the file is missing, or a line is no such record; names file, line, field and remedy.
    """
    name = record_type.__name__
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield parse_record(line, record_type, f"{path}:{number}")
    except OSError as error:
        raise RecordError(f"{path}: cannot read {name} records ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None


def parse_record(line: str, record_type: type[R], where: str) -> R:
    """Returns the record in one line of JSON.

    Args:
      line: the JSON text.
      record_type: the record class expected.
      where: "file:line", for messages.

    Raises:
      RecordError: not JSON, another schema, a missing or unknown field, or a wrong type.
    """
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); each line must be one object"
        ) from None
    if not isinstance(data, dict):
        raise RecordError(f"{where}: {type(data).__name__} instead of an object; each line must be one JSON object")
    return _from_mapping(data, record_type, where)


def _from_mapping(data: dict[str, Any], record_type: type[R], where: str) -> R:
    schema = data.pop("schema", record_type.SCHEMA)
    if schema != record_type.SCHEMA:
        raise RecordError(f"{where}: schema {schema!r}, expected {record_type.SCHEMA!r}; is this the right file?")
    fields = {field.name: field for field in dataclasses.fields(record_type)}
    unknown = sorted(data.keys() - fields.keys())
    if unknown and not record_type.ALLOWS_EXTRA_KEYS:
        raise RecordError(f"{where}: unknown field {unknown[0]!r}; {record_type.__name__} has {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name not in data:
            if field.default is dataclasses.MISSING:
                raise RecordError(f"{where}: field {name!r} is missing; {record_type.__name__} needs it")
            continue
        value = data[name]
        if type(value) is not field.type:
            wanted = getattr(field.type, "__name__", field.type)
            raise RecordError(f"{where}: field {name!r} is {value!r}; it must be {wanted}")
        values[name] = value
    return record_type(**values)
