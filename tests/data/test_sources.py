"""Sources: every form is read, every fault has its reason, and lineages hold together."""

import json

import pytest

from jaxwiz.data.sources import Reject, Row, SourceError, lineage_keys, read_source
from jaxwiz.records import write_records
from tests.data.conftest import evolved

ROW = {"instruction": "Add.", "input": "1, 2", "output": "3"}


def test_alpaca_json_and_jsonl_give_the_same_rows(tmp_path):
    rows = [ROW, {"instruction": "Say\r\n\thi.", "output": "hi 😀"}, {**ROW, "input": None, "id": 7, "extra": [1]}]
    array, lines = tmp_path / "rows.json", tmp_path / "rows.jsonl"
    array.write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode())
    lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    read = list(read_source(array))
    assert [(row.instruction, row.input, row.output) for row in read] == [
        ("Add.", "1, 2", "3"),
        ("Say\r\n\thi.", "", "hi 😀"),
        ("Add.", "", "3"),
    ]
    assert [row.number for row in read] == [1, 2, 3]
    again = list(read_source(lines))
    assert [row.number for row in again] == [1, 3, 5]
    assert [(row.instruction, row.input, row.output) for row in again] == [
        (row.instruction, row.input, row.output) for row in read
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


@pytest.mark.parametrize("content", [b"", b" \n", b'[{"instruction": "x"'])
def test_a_file_that_cannot_be_read_at_all_is_named(content, tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"rows\.json"):
        list(read_source(path))


def test_lineages_hold_together_across_files_and_in_any_order(tmp_path):
    first, second, plain = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "3.json"
    write_records(first, [evolved("b", "a", "Harder"), evolved("a", "a", "Sort a  list"), evolved("z", "y", "Orphan")])
    write_records(second, [evolved("q", "q", "Sort a list"), evolved("r", "q", "Wider"), evolved("s", "a", "Hardest")])
    plain.write_text(
        json.dumps([{"instruction": "Sort\na list", "output": "x"}, {"instruction": "Other", "output": "x"}])
    )
    rows = [row for path in (first, second, plain) for row in read_source(path)]
    harder, seed, orphan, copied, wider, hardest, same, other = lineage_keys(rows)
    assert harder == seed == copied == wider == hardest == same
    assert len({seed, orphan, other}) == 3
    assert lineage_keys(rows[::-1])[::-1] == lineage_keys(rows)
