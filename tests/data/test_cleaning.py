"""Cleaning's answers laid over the rows."""

import dataclasses
import json
import shutil
from pathlib import Path

from jaxwiz.clean.config import CleanConfig
from jaxwiz.data.cleaning import count_exclusions, without_excluded
from jaxwiz.data.run import run
from jaxwiz.data.sources import Reject, Row
from jaxwiz.text.messages import question_and_answer
from tests.data.conftest import alpaca_rows

LONG = {
    "instruction": "Write a class which keeps the largest of the numbers that it is shown, and says how many it saw.",
    "output": "class Largest:\n    def __init__(self):\n        self.count, self.largest = 0, None\n"
    "    def show(self, number):\n        self.count += 1\n        self.largest = max(number, self.largest or 0)\n",
}


def write_exclusions(path: Path, **reasons: tuple[int, str, str]) -> Path:
    entries = [
        {
            "place": place,
            "key": f"rows.json:{place}",
            "reason": reason,
            "tier": tier,
            "match": "a.json:1",
            "detail": "same",
        }
        for place, reason, tier in reasons.values()
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_excluded_rows_become_rejects_and_unusable_rows_are_not_counted(tmp_path):
    exclusions = write_exclusions(
        tmp_path / "exclusions.jsonl", first=(1, "near_duplicate", "near"), second=(2, "contaminated", "runs")
    )
    unusable = Reject(Path("rows.json"), 2, "empty answer", "blank")
    rows = [Row(Path("rows.json"), number, question_and_answer("x", "", "y")) for number in (1, 3, 4, 5)]
    items = [rows[0], unusable, *rows[1:]]
    found = list(without_excluded(items, exclusions))
    assert [found[0], found[1], found[4]] == [rows[0], unusable, rows[3]]
    assert found[2] == Reject(Path("rows.json"), 3, "near duplicate", "near: same (a.json:1)")
    assert found[3] == Reject(Path("rows.json"), 4, "contaminated", "runs: same (a.json:1)")


def test_no_exclusions_leave_all_rows(tmp_path):
    rows = [Row(Path("rows.json"), 1, question_and_answer("x", "", "y"))]
    assert list(without_excluded(rows, write_exclusions(tmp_path / "none"))) == rows


def test_exclusions_are_counted_by_reason_and_test(tmp_path):
    exclusions = write_exclusions(
        tmp_path / "exclusions.jsonl",
        a=(1, "contaminated", "runs"),
        b=(2, "duplicate", "exact"),
        c=(5, "contaminated", "runs"),
        d=(7, "contaminated", "equal"),
    )
    assert count_exclusions(exclusions) == {"contaminated": {"equal": 1, "runs": 2}, "duplicate": {"exact": 1}}


def test_cleaned_rows_are_counted_listed_and_reported(make_config):
    rows = alpaca_rows(40)
    nearly = {**LONG, "output": LONG["output"] + "# the end\n"}
    config = make_config([*rows, rows[3], LONG, nearly], clean=CleanConfig(benchmarks=()))
    run(config)
    manifest = json.loads((config.out / "manifest.json").read_text())
    assert manifest["cleaning"] == {"duplicate": {"exact": 1}, "near_duplicate": {"near": 1}}
    assert manifest["left_out"] == {"duplicate": 1, "near duplicate": 1}
    assert manifest["splits"]["train"]["examples"] == 41
    listed = [json.loads(line) for line in (config.out / "rejects.jsonl").read_text().splitlines()]
    assert [(entry["number"], entry["reason"]) for entry in listed] == [(41, "duplicate"), (43, "near duplicate")]
    assert "rows.json:4" in listed[0]["detail"]
    assert "rows.json:42" in listed[1]["detail"]
    assert (config.out / "cleaning.json").exists()
    assert "<html" in (config.out / "cleaning.html").read_text().lower()


def test_reports_of_an_older_run_do_not_stay(make_config):
    run(make_config(alpaca_rows(9), clean=CleanConfig(benchmarks=())))
    config = make_config(alpaca_rows(9))
    run(config)
    assert sorted(path.name for path in config.out.iterdir()) == ["dataset", "manifest.json", "summary.txt"]


def test_sources_of_one_name_are_told_apart(make_config, tmp_path):
    (tmp_path / "other").mkdir()
    first = make_config(alpaca_rows(9))
    shutil.copy(first.sources[0], tmp_path / "other" / "rows.json")
    config = dataclasses.replace(
        first, sources=(*first.sources, tmp_path / "other" / "rows.json"), clean=CleanConfig(benchmarks=(), near=None)
    )
    run(config)
    assert json.loads((config.out / "manifest.json").read_text())["cleaning"] == {"duplicate": {"exact": 9}}
    assert f"({first.sources[0]}:9)" in (config.out / "rejects.jsonl").read_text()
