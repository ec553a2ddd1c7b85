"""Lineages hold together whatever the order, and a side once taken is kept."""

import json
import random
from pathlib import Path

import pytest

from jaxwiz.data import lineage
from jaxwiz.data.lineage import Lineages, heldout_lineages
from jaxwiz.data.sources import Row, read_source
from jaxwiz.records import write_records
from jaxwiz.text.messages import question_and_answer
from tests.data.conftest import evolved


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    first, second, plain = tmp_path / "1.jsonl", tmp_path / "2.jsonl", tmp_path / "3.json"
    write_records(first, [evolved("b", "a", "Harder"), evolved("a", "a", "Sort a  list"), evolved("z", "y", "Orphan")])
    write_records(second, [evolved("q", "q", "Sort a list"), evolved("r", "q", "Wider"), evolved("s", "a", "Hardest")])
    plain.write_text(
        json.dumps([{"instruction": "Sort\na list", "output": "x"}, {"instruction": "Other", "output": "x"}])
    )
    return [row for path in (first, second, plain) for row in read_source(path) if isinstance(row, Row)]


def seen(rows: list[Row], share: float = 0.5, seed: int = 0) -> Lineages:
    lineages = Lineages(share, seed)
    for row in rows:
        lineages.add(row)
    return lineages


def test_lineages_hold_together_across_files_and_in_any_order(rows):
    lineages = seen(rows)
    harder, seed, orphan, copied, wider, hardest, same, other = [lineages.key(row) for row in rows]
    assert harder == seed == copied == wider == hardest == same
    assert len({seed, orphan, other}) == 3
    draw = random.Random(0)
    for _ in range(10):
        shuffled = seen(draw.sample(rows, len(rows)))
        assert [shuffled.key(row) for row in rows] == [lineages.key(row) for row in rows]


@pytest.mark.parametrize("few", [0, 100])
def test_what_was_saved_judges_alike(few, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(lineage, "FEW_LINEAGES", few)
    before = seen(rows)
    before.save(tmp_path / "lineages.json")
    after = Lineages.load(tmp_path / "lineages.json", 0.5, 0)
    assert [after.heldout(row) for row in rows] == [before.heldout(row) for row in rows]


def test_many_lineages_take_their_sides_one_by_one(rows, monkeypatch):
    """With many lineages no list of them is kept, and sides are what the list would have given."""
    monkeypatch.setattr(lineage, "FEW_LINEAGES", 2)
    for seed in range(20):
        lineages = seen(rows, 0.5, seed)
        keys = {lineages.key(row) for row in rows}
        below = {key for key in keys if lineage._position(key, seed) < 0.5}
        assert {lineages.key(row) for row in rows if lineages.heldout(row)} == below
        if 0 < len(below) < len(keys):
            assert below == heldout_lineages(keys, 0.5, seed)


def test_rows_without_a_seed_take_no_memory():
    lineages = Lineages(0.1, 0)
    for number in range(lineage.FEW_LINEAGES + 2):
        lineages.add(Row(Path("x"), number, question_and_answer(f"Task {number}", "", "pass")))
    assert lineages._few is None
    assert not lineages._parents


def test_held_out_lineages_keep_their_side_as_the_data_grows():
    keys = {f"lineage {number}" for number in range(1000)}
    few = {f"lineage {number}" for number in range(300)}
    heldout = heldout_lineages(keys, 0.1, seed=0)
    assert 70 <= len(heldout) <= 130
    assert heldout_lineages(few, 0.1, seed=0) == heldout & few
    assert heldout < heldout_lineages(keys, 0.2, seed=0)
    assert heldout_lineages(keys, 0.1, seed=1) != heldout
    assert heldout_lineages(keys, 0.0, seed=0) == set()
    # However small the set, neither side is empty if there are two lineages.
    assert [len(heldout_lineages({"a", "b"}, share, seed=0)) for share in (1e-9, 1 - 1e-9)] == [1, 1]
    assert heldout_lineages({"a"}, 0.5, seed=0) == set()
