"""Sources: every form is read, every fault has its reason, and memory stays flat."""

import codecs
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jaxwiz.data import entries
from jaxwiz.data.sources import Reject, Row, SourceError, read_source
from jaxwiz.records import write_records
from jaxwiz.text.messages import Message
from tests.data.conftest import evolved

ROW = {"instruction": "Add.", "input": "1, 2", "output": "3"}


def test_alpaca_json_and_jsonl_give_the_same_rows(tmp_path):
    rows = [ROW, {"instruction": "Say\r\n\thi.", "output": "hi 😀"}, {**ROW, "input": None, "id": 7, "extra": [1]}]
    array, lines = tmp_path / "rows.json", tmp_path / "rows.jsonl"
    array.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode())
    lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    read = list(read_source(array))
    assert [(row.question.content, row.question.input, row.output) for row in read] == [
        ("Add.", "1, 2", "3"),
        ("Say\r\n\thi.", "", "hi 😀"),
        ("Add.", "", "3"),
    ]
    assert [row.number for row in read] == [1, 2, 3]
    again = list(read_source(lines))
    assert [row.number for row in again] == [1, 3, 5]
    assert [(row.question.content, row.question.input, row.output) for row in again] == [
        (row.question.content, row.question.input, row.output) for row in read
    ]


def test_evolved_tasks_keep_their_root(tmp_path):
    path = tmp_path / "evolved.jsonl"
    write_records(
        path, [evolved("a", "a", "Seed"), evolved("b", "a", "Harder"), evolved("c", "a", "Bad", rejected="copy")]
    )
    seed, harder, eliminated = read_source(path)
    assert (seed.root, seed.is_root, harder.root, harder.is_root) == ("a", True, "a", False)
    assert isinstance(eliminated, Reject)
    assert (eliminated.reason, eliminated.number) == ("eliminated", 3)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"instruction": "\xff", "output": "x"}', "invalid UTF-8"),
        (b'{"instruction": "\\ud800", "output": "x"}', "invalid Unicode"),
        (b"3", "not an object"),
        (b'{"instruction": "x"}', "missing field"),
        (b'{"instruction": "x", "output": 3}', "wrong type"),
        (b'{"instruction": "x", "output": "x", "input": ["x"]}', "wrong type"),
        (b'{"instruction": " \\n", "output": "x"}', "empty instruction"),
        (b'{"instruction": "x", "output": " \\t\\n"}', "empty answer"),
        (b'{"schema": "jaxwiz.verdict.v1"}', "unknown schema"),
        (b'{"root": "a", "instruction": "x", "input": "", "output": "y"}', "missing field"),
        (b'{"messages": "hi"}', "wrong type"),
        (b'{"messages": ["hi"]}', "wrong type"),
        (b'{"messages": []}', "bad turn order"),
        (b'{"messages": [{"role": "user", "content": null}]}', "wrong type"),
        (b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}', "wrong type"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "wrong type"),
        (b'{"messages": [{"role": "tool", "content": "3"}]}', "unknown role"),
        (b'{"messages": [{"content": "3"}]}', "unknown role"),
        (b'{"messages": [{"role": "user", "content": "\\udfff"}]}', "invalid Unicode"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "empty instruction"),
        (b'{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "\\n"}]}', "empty answer"),
        (b'{"conversations": [{"from": "human", "value": "x"}]}', "bad turn order"),
        (b'{"conversations": [{"from": "gpt", "value": "x"}]}', "bad turn order"),
        (b'{"conversations": [{"from": "human", "value": "x"}, {"from": "human", "value": "x"}]}', "bad turn order"),
        (b'{"system": 3, "conversations": [{"from": "human", "value": "x"}]}', "wrong type"),
        (b'{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]}', "bad turn order"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_the_next_is_read(line, reason, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line + b"\n" + json.dumps(ROW).encode())
    rejected, row = read_source(path)
    assert isinstance(rejected, Reject)
    assert (rejected.reason, rejected.number) == (reason, 1)
    assert json.loads(rejected.to_json())["detail"]
    assert isinstance(row, Row)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'[{"instruction": "x"', "entry 1 .*Expecting ',' delimiter"),
        (b'[{"instruction": "x"} {}]', "entry 1 .*no comma after it"),
        (b'[{"instruction": "x"},]', "entry 2 .*Expecting value"),
        (b"[{}, {}] {}", "entry 2 .*the file goes on"),
        (b"[{}", "entry 1 .*no comma"),
        (b"[" + b'{"a":' * 100_000, "entry 1 .*recursion"),
        (b"PAR1 and nothing", "Parquet but cannot be read after row 0"),
    ],
)
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_file_that_cannot_be_read_at_all_is_named(content, message, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "_CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=rf"rows\.json: .*{message}"):
        list(read_source(path))


SYSTEM, ASK, ANSWER = Message("system", "Be brief."), Message("user", "hi 😀"), Message("assistant", " hello\r\n")
OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi 😀"},
    {"role": "assistant", "content": " hello\r\n"},
]


def in_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text[:3]}, {"type": "text", "text": text[3:]}]


SHAREGPT = [{"from": "human", "value": "hi 😀"}, {"from": "gpt", "value": " hello\r\n"}]


@pytest.mark.parametrize(
    ("entry", "messages"),
    [
        ({"messages": OPENAI}, (SYSTEM, ASK, ANSWER)),
        ({"messages": OPENAI + OPENAI[1:], "instruction": None}, (SYSTEM, ASK, ANSWER, ASK, ANSWER)),
        ({"messages": [{**OPENAI[0], "role": "developer"}, *OPENAI[1:]]}, (SYSTEM, ASK, ANSWER)),
        ({"messages": [{**OPENAI[0], "content": " "}, *OPENAI[1:]]}, (ASK, ANSWER)),
        ({"messages": [{**turn, "content": in_parts(turn["content"])} for turn in OPENAI]}, (SYSTEM, ASK, ANSWER)),
        ({"conversations": SHAREGPT * 2, "id": 3}, (ASK, ANSWER, ASK, ANSWER)),
        ({"conversations": SHAREGPT, "system": "Be brief."}, (SYSTEM, ASK, ANSWER)),
        ({"conversations": SHAREGPT, "system": ""}, (ASK, ANSWER)),
        ({"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT]}, (SYSTEM, ASK, ANSWER)),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_chats_are_read_from_every_form_of_file(entry, messages, form, tmp_path):
    path = write_as(form, tmp_path, [entry])
    [row] = read_source(path)
    assert isinstance(row, Row)
    assert row.messages == messages
    assert (row.question, row.instruction, row.output) == (ASK, "hi 😀", " hello\r\n")
    assert set(row.answers) == {" hello\r\n"}


def write_as(form: str, folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows as JSONL, a JSON array or Parquet and returns the file."""
    path = folder / f"rows.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)
    elif form == "json":
        path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_parquet_gives_rows_with_their_numbers_and_only_its_bad_values_are_rejected(tmp_path):
    rows = [{**ROW, "instruction": f"Add {n}.", "vectors": [0.5] * 9} for n in range(250)]
    assert [(row.number, row.instruction) for row in read_source(write_as("parquet", tmp_path, rows))] == [
        (n + 1, f"Add {n}.\n\n1, 2") for n in range(250)
    ]
    outputs = [b"fine", b"\xff", b""]
    table = pyarrow.table(
        {"instruction": ["x"] * 3, "output": pyarrow.array(outputs, pyarrow.binary()).cast(pyarrow.binary())}
    )
    spoilt = pyarrow.StringArray.from_buffers(3, *table["output"].chunk(0).buffers()[1:])
    pyarrow.parquet.write_table(table.set_column(1, "output", spoilt), tmp_path / "spoilt.parquet")
    fine, invalid, empty = read_source(tmp_path / "spoilt.parquet")
    assert fine.output == "fine"
    assert (invalid.reason, invalid.number, empty.reason) == ("invalid UTF-8", 2, "empty answer")


@pytest.mark.parametrize("chunk", [1, 2, 3, 64, 1 << 20])
def test_a_json_array_reads_the_same_however_it_is_cut(chunk, tmp_path, monkeypatch):
    """Every border between chunks: within characters of several bytes, escapes, numbers, and white space."""
    path = tmp_path / "rows.json"
    rows = [{**ROW, "output": 'é漢😀 \\ " \ud83d\ude00 \t'}, 12, {**ROW, "n": [1e5, -7, None, True]}, ROW]
    spoilt = json.dumps({**ROW, "output": "bad"}).encode().replace(b"bad", b"\xf0\x9f")
    text = "[\r\n" + " ,\n".join(json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows))
    path.write_bytes(codecs.BOM_UTF8 + text.encode("utf-8", "surrogatepass") + b"\t,\n" + spoilt + b" ]\n\n")
    expected = list(read_source(path))
    assert [getattr(item, "reason", "") for item in expected] == ["", "not an object", "", "", "invalid UTF-8"]
    assert expected[0].output == 'é漢😀 \\ " 😀 \t'
    monkeypatch.setattr(entries, "_CHUNK_BYTES", chunk)
    assert list(read_source(path)) == expected


def test_an_endless_entry_is_an_error_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(entries, "_CHUNK_BYTES", 10)
    monkeypatch.setattr(entries, "_MAX_ENTRY_CHARACTERS", 1000)
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": "' + b"x" * 100_000 + b'"}]')
    with pytest.raises(SourceError, match=r"entry 1 .*Unterminated string"):
        list(read_source(path))


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_memory_does_not_grow_with_a_file(form, tmp_path):
    path = write_as(form, tmp_path, [{**ROW, "output": "x" * 2000}] * 10_000)
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_source(path)) == 10_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000
