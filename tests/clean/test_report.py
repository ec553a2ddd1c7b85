"""The report: counts by tier and task, rows beside their task, and a page that hostile texts can do nothing to."""

import json
from pathlib import Path

import pytest

from jaxwiz.clean.report import MOST_SHOWN, marked, render_page, write_report
from jaxwiz.clean.run import CONTAMINATED, SUMMARY, find_exclusions
from jaxwiz.clean.texts import Text
from tests.chromium import Chromium
from tests.clean.made import PROMPT, SOLUTION, clean_config
from tests.clean.test_run import sample_rows

HOSTILE = "</pre></script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\ud800"


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cleaned")
    rows = [*sample_rows(), Text(f"<b>{HOSTILE}", f"{HOSTILE} {PROMPT}", f"{SOLUTION}{HOSTILE}")]
    rows.append(Text("rows.jsonl:31", "Add.", "def put_it(x, y):\n    return x + y\n"))
    list(find_exclusions(rows, clean_config(folder), folder / "work"))
    write_report(folder / "work", folder / "out")
    return folder / "out"


def test_the_json_counts_by_reason_tier_and_task(cleaned: Path):
    report = json.loads((cleaned / "cleaning.json").read_text())
    assert (report["rows"], report["kept"]) == (32, 26)
    assert report["reasons"] == {"duplicate": 1, "near_duplicate": 1, "contaminated": 4}
    assert report["tiers"] == {"equal": 2, "contained": 1, "runs": 0, "example": 0, "tests": 1}
    assert report["tasks"] == {
        "HumanEval/0": {"benchmarks": ["humaneval"], "tiers": {"equal": 2, "contained": 1, "tests": 1}}
    }
    assert [one["name"] for one in report["benchmarks"]] == ["humaneval", "mbpp"]
    assert report["benchmarks_left_out"] == ["humaneval_plus", "mbpp_plus"]
    assert report["tests"]["passes_not_counted"] == {"trivial": 1}
    assert report["tests"]["examples_not_counted"] == [
        {"key": "rows.jsonl:31", "function": "put_it", "task_id": "HumanEval/1", "why": "trivial"}
    ]
    assert report["contaminated"][0]["key"] == "rows.jsonl:5" and len(report["contaminated"]) == 4
    assert report["duplicates"]["near_examples"][0]["like"] == "rows.jsonl:12"


def test_the_page_in_a_browser(chromium: Chromium, cleaned: Path):
    chromium.open(cleaned / "cleaning.html")
    assert chromium.complaints() == [] and [url for url in chromium.requests() if not url.startswith("file:")] == []
    assert chromium.run("document.title") == "Cleaning: 26 of 32 rows kept"
    cards = "[...document.querySelectorAll('.card .figure')].map(one => one.textContent)"
    assert chromium.run(cards) == ["1", "1", "4"]
    tiers = "[...document.querySelectorAll('#tiers tbody td.number')].map(one => one.textContent)"
    assert chromium.run(tiers) == ["2", "1", "0", "0", "1"]
    assert "Not held against humaneval_plus, mbpp_plus" in chromium.run(
        "document.querySelector('.caution').textContent"
    )
    assert chromium.run("document.querySelectorAll('details.row').length") == 4
    sides = "document.querySelectorAll('details.row')[1].querySelectorAll('.sides > div')"
    row, task = chromium.run(f"[...{sides}].map(one => one.textContent)")
    assert "def cap(piles, most)" in row and "Take from every heap" in task
    left, right = chromium.run(f"[...{sides}].map(one => one.getBoundingClientRect().left)")
    assert right > left + 300  # beside each other
    chromium.resize(420, 900)
    assert chromium.run("document.documentElement.scrollWidth") <= 420
    chromium.resize(1280, 900)


def test_hostile_rows_stay_text(chromium: Chromium, cleaned: Path):
    chromium.open(cleaned / "cleaning.html")
    assert chromium.run("document.title") == "Cleaning: 26 of 32 rows kept"
    assert chromium.run("document.querySelectorAll('script, img').length") == 0
    assert chromium.run("document.body.textContent.includes(\"<script>document.title='owned'\")")


def test_shared_runs_are_marked():
    text = "We say: one two <three> four five six, and then seven."
    other = "ONE two three four five six eight"
    assert str(marked(text, other)) == ("We say: <mark>one two &lt;three&gt; four five six</mark>, and then seven.")
    assert str(marked("a & b", "c")) == "a &amp; b"
    assert len(marked("x" * 10_000, "")) == 6000


def test_of_very_many_rows_the_first_are_shown(tmp_path: Path):
    list(find_exclusions([Text("k", PROMPT, "")], clean_config(tmp_path), tmp_path))
    summary = json.loads((tmp_path / SUMMARY).read_text())
    row = json.loads((tmp_path / CONTAMINATED).read_text())
    page = render_page(summary, [row] * (MOST_SHOWN + 7))
    assert page.count('<details class="row"') == MOST_SHOWN and "7 more are in cleaning.json" in page
