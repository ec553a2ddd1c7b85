"""Counts of a run, and where its rows go."""

import json
from pathlib import Path

import pytest

from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import PricesConfig
from jaxwiz.evolve.rows import Evolution, RowFiles
from jaxwiz.evolve.statistics import Statistics
from jaxwiz.llm.protocol import GenerationResult
from jaxwiz.records import EvolvedTask, read_records
from tests.evolve.test_engine import seed

TASKS = [
    seed("a", difficulty=3),
    seed("b", rejected="contaminated"),
    seed("a/r1", root="a", parent="a", round=1, operation="x/one"),
    seed("c/r1", root="c", parent="c", round=1, operation="x/one", rejected="leak"),
    seed("d/r1", root="d", parent="d", round=1, operation="x/two", rejected="near_duplicate"),
    seed("a/r2", root="a", parent="a/r1", round=2, operation="x/two", difficulty=8),
]


@pytest.fixture
def account() -> Account:
    one = Account(PricesConfig(input_per_million=1e6, output_per_million=2e6))
    one.add(0, "answer", GenerationResult("x", "stop", 1, 2))
    one.add(1, "evolve", GenerationResult("x", "stop", 3, 4))
    one.add(1, "evolve", GenerationResult("x", "stop", 5, 6))
    return one


@pytest.fixture
def statistics() -> Statistics:
    one = Statistics()
    for task in TASKS:
        one.add(task)
    one.add_verdict(1, "not_equal")
    one.waiting[2] += 3
    return one


def test_counts_by_hand(statistics: Statistics, account: Account):
    assert statistics.to_json(account, "m", 4) == {
        "schema": "jaxwiz.evolve_statistics.v1",
        "generator": "m",
        "rounds_wanted": 4,
        "complete": False,
        "seeds": {"read": 2, "kept": 1, "rejected": {"contaminated": 1}, "difficulty": 3.0},
        "rounds": [
            {
                "round": 1,
                "tried": 3,
                "kept": 1,
                "rejected": {"leak": 1, "near_duplicate": 1},
                "waiting": 0,
                "difficulty": None,
                "verdicts": {"equal": 0, "not_equal": 1, "unclear": 0},
                "operations": {
                    "x/one": {"tried": 2, "kept": 1, "rejected": {"leak": 1}},
                    "x/two": {"tried": 1, "kept": 0, "rejected": {"near_duplicate": 1}},
                },
            },
            {
                "round": 2,
                "tried": 1,
                "kept": 1,
                "rejected": {},
                "waiting": 3,
                "difficulty": 8.0,
                "verdicts": {"equal": 0, "not_equal": 0, "unclear": 0},
                "operations": {"x/two": {"tried": 1, "kept": 1, "rejected": {}}},
            },
        ],
        "calls": [
            {"round": 0, "kind": "answer", "calls": 1, "prompt_tokens": 1, "new_tokens": 2, "cost": 5.0},
            {"round": 1, "kind": "evolve", "calls": 2, "prompt_tokens": 8, "new_tokens": 10, "cost": 28.0},
        ],
        "currency": "USD",
    }


def test_the_summary_counts_detectors_apart(statistics: Statistics, account: Account):
    assert statistics.summarise(account, 4).splitlines() == [
        "rows:        3 = 1 seeds + 2 evolutions",
        "seeds lost:  1: contaminated 1",
        "evolutions:  2 of 4 kept in 4 round(s)",
        "rejected:    1: leak 1",
        "detected:    1: near_duplicate 1",
        "verdicts:    equal 0, not_equal 1, unclear 0",
        "by operation: x/one 1/2, x/two 1/2",
        "by round:    1 1/3, 2 1/1",
        "calls:       3 (answer 1, evolve 2)",
        "tokens:      9 in prompts, 12 generated",
        "difficulty:  seeds 3.00, round 2 8.00",
        "cost:        33.00 USD",
        "unfinished:  3 items wait for a larger budget",
    ]


def test_files_and_lists_hold_the_same_rows_in_the_same_order(tmp_path: Path):
    made = Evolution()
    with RowFiles(tmp_path, seed=3) as rows:
        for task in TASKS:
            made.add(task)
            rows.add(task)
        assert not (tmp_path / "evolved.jsonl").exists()
    assert list(read_records(tmp_path / "evolved.jsonl", EvolvedTask)) == made.training_set(3)
    assert list(read_records(tmp_path / "rejected.jsonl", EvolvedTask)) == made.rejected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evolved.jsonl", "rejected.jsonl"]


def test_half_a_surrogate_pair_is_kept_as_its_json(tmp_path: Path):
    with RowFiles(tmp_path, seed=0) as rows:
        rows.add(seed("s", output="\ud800"))
    assert json.loads((tmp_path / "evolved.jsonl").read_text())["output"] == "\ud800"


def test_a_run_that_fails_leaves_the_files_of_the_last_one(tmp_path: Path):
    for task, fails in ((TASKS[0], False), (TASKS[2], True)):
        try:
            with RowFiles(tmp_path, seed=0) as rows:
                rows.add(task)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
    assert [task.id for task in read_records(tmp_path / "evolved.jsonl", EvolvedTask)] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evolved.jsonl", "rejected.jsonl"]
