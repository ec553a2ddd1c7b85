"""Records survive the trip through a file; what is not a record is named by line and field."""

import json
from pathlib import Path

import pytest

from jaxwiz.records import Completion, EvolvedTask, RecordError, Seed, read_records, write_records

TASK = EvolvedTask(
    id="seed-1.r1",
    instruction="Write \u2028 <b>\r\n\t`code` & {braces}",
    input="",
    output="```python\nprint('😀')\n```",
    root="seed-1",
    parent="seed-1",
    operation="deepen",
    round=1,
    attempt=0,
)


def test_records_survive_a_file_unchanged(tmp_path: Path):
    path = tmp_path / "tasks.jsonl"
    assert write_records(path, [TASK, TASK]) == 2
    assert list(read_records(path, EvolvedTask)) == [TASK, TASK]
    assert len(path.read_bytes().split(b"\n")) == 3


def line(**changes: object) -> str:
    data = json.loads(TASK.to_json()) | changes
    return json.dumps({key: value for key, value in data.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"tasks.jsonl:1: not JSON"),
        ("[1]", r"tasks.jsonl:1: list instead of an object"),
        (line(round="1"), r"tasks.jsonl:1: field 'round' is '1'; it must be int"),
        (line(round=True), r"field 'round' is True; it must be int"),
        (line(parent=None), r"field 'parent' is missing"),
        (line(colour="red"), r"unknown field 'colour'"),
        (line(schema="jaxwiz.verdict.v1"), r"schema 'jaxwiz.verdict.v1', expected 'jaxwiz.evolved_task.v1'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "tasks.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(RecordError, match=message):
        list(read_records(path, EvolvedTask))


def test_a_missing_file_and_one_that_is_not_text_are_named(tmp_path: Path):
    with pytest.raises(RecordError, match="cannot read Completion records"):
        list(read_records(tmp_path / "absent.jsonl", Completion))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="not UTF-8"):
        list(read_records(tmp_path / "binary.jsonl", Completion))


def test_seeds_may_carry_columns_of_their_own(tmp_path: Path):
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "Sort.", "difficulty": 3}\n\n')
    assert list(read_records(path, Seed)) == [Seed(instruction="Sort.")]


def test_lone_surrogates_survive(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    seed = Seed(instruction="a\ud800b \udfff é", id="1")
    write_records(path, [seed])
    assert r"a\ud800b \udfff é" in path.read_text(encoding="utf-8")
    assert list(read_records(path, Seed)) == [seed]
