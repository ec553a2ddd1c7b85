"""The report of a finished run in a real browser: figures, drawings, lineages; hostile texts do nothing."""

import json
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.evolve.config import BudgetConfig, CallConfig, CallsConfig
from jaxwiz.evolve.detectors import DETECTED
from jaxwiz.insight import page
from jaxwiz.insight.growth import lay_out
from jaxwiz.insight.rows import read_run
from jaxwiz.records import EvolvedTask, read_records
from tests.chromium import Chromium

LISTED = "[...document.querySelectorAll('details.lineage')].map(one => one.querySelector('strong').textContent)"


@pytest.fixture(scope="module")
def written(evolved: Path) -> Path:
    assert main(["insight", str(evolved)]) == 0
    return evolved / "insight.html"


@pytest.fixture
def shown(chromium: Chromium, written: Path) -> Chromium:
    chromium.open(written)
    assert chromium.complaints() == []
    return chromium


def table(browser: Chromium, name: str) -> list[list[str]]:
    return browser.run(
        f"[...document.querySelectorAll('#{name} tbody tr')].map(row => [...row.children].map(one => one.innerText))"
    )


def test_the_page_has_the_figures_of_the_run(shown: Chromium, evolved: Path):
    statistics = json.loads((evolved / "statistics.json").read_text())
    kept = sum(one["kept"] for one in statistics["rounds"])
    tried = sum(one["tried"] for one in statistics["rounds"])
    assert 0 < kept < tried == 50
    assert shown.run("document.title") == f"Evolution: {kept} of 50 kept"
    figures = shown.run("[...document.querySelectorAll('.card .figure')].map(one => one.innerText)")
    assert figures[0] == str(25 + kept) and figures[1] == f"{100 * kept / 50:.1f}%"
    assert figures[3] == f"{sum(one['cost'] for one in statistics['calls']):.2f} USD"
    operations = {line[0]: line[1:4] for line in table(shown, "operations")}
    assert set(operations) == {"in_depth/deepen", "in_depth/concretize", "in_breadth/rarer_topic"}
    assert sum(int(line[0]) for line in operations.values()) == 50
    assert sum(int(line[1]) for line in operations.values()) == kept
    reasons = {line[0]: line[1:] for line in table(shown, "reasons")}
    assert reasons["judged_equal"][:3] == [page.REASONS["judged_equal"], "rule", str(50 - kept)]
    assert [int(count) for count in reasons["judged_equal"][4:]] == [
        one["rejected"]["judged_equal"] for one in statistics["rounds"]
    ]
    costs = table(shown, "cost")
    of_a_round = ["evolve", "judge", "answer", "difficulty"]
    assert [line[1] for line in costs] == ["answer", "difficulty", *of_a_round, *of_a_round, ""]
    assert costs[-1][2] == f"{sum(one['calls'] for one in statistics['calls'])}"


def test_growth_is_drawn_and_said(shown: Chromium, evolved: Path):
    growth = table(shown, "growth")
    assert [line[0] for line in growth] == ["Instructions", "", "", "Answers", "", "", "Difficulty", "", ""]
    assert [line[1] for line in growth] == ["seeds", "round 1", "round 2"] * 3
    difficulty = [float(line[3]) for line in growth[6:]]
    assert difficulty[0] == 3.0 < difficulty[1] < difficulty[2]
    rows = [task for task in read_records(evolved / "evolved.jsonl", EvolvedTask) if task.round == 2]
    assert growth[8][2] == str(len(rows))
    assert growth[8][3] == f"{sum(task.difficulty for task in rows) / len(rows):.1f}"
    assert shown.run("document.querySelectorAll('.charts svg').length") == 3
    tops = shown.run(
        "[...document.querySelectorAll('.charts figure:last-child .mean-dot')].map(one => one.cy.baseVal.value)"
    )
    assert tops[0] > tops[1] > tops[2], "what is more difficult stands higher"
    assert shown.run(
        "[...document.querySelectorAll('svg')].every(svg => [...svg.querySelectorAll('text, rect')].every(part => "
        "{ const a = part.getBoundingClientRect(), b = svg.getBoundingClientRect(); "
        "return a.left >= b.left - 1 && a.right <= b.right + 1 && a.bottom <= b.bottom + 1 }))"
    ), "everything stands within its drawing"


def test_topics_have_words_and_shares_of_each_round(shown: Chromium):
    topics = table(shown, "topics")
    named = " ".join(line[0] for line in topics[:-3])
    assert "dates" in named and "log" in named and "folders" in named
    for column in (1, 2, 3):
        assert sum(float(line[column].rstrip("%")) for line in topics[:-3]) == pytest.approx(100, abs=0.5)
    assert [line[0].split()[0] for line in topics[-3:]] == ["topics", "mean", "instructions"]


def test_a_lineage_opens_with_its_changes(shown: Chromium, evolved: Path):
    tasks = {task.id: task for task in read_records(evolved / "evolved.jsonl", EvolvedTask)}
    root = next(task.root for task in tasks.values() if task.round == 2 and task.parent.endswith("/r1"))
    assert len(shown.run(LISTED)) == 25
    box = f"[...document.querySelectorAll('details.lineage')].find(one => one.rows[0].id === '{root}')"
    assert shown.run(f"{box}.querySelectorAll('.step').length") == 0, "drawn when it is opened"
    shown.run(f"{box}.querySelector('summary').click()")
    assert shown.run(f"new Promise(done => setTimeout(() => done({box}.querySelectorAll('.step').length), 50))") == 3
    heads = shown.run(f"[...{box}.querySelectorAll('.step h3')].map(one => one.innerText)")
    assert heads[0].startswith("seed") and "difficulty 3" in heads[0]
    assert heads[1].startswith("round 1: in_") and "kept" in heads[1]
    added_in = "step => [...step.querySelectorAll('ins')].map(one => one.textContent).join('|')"
    changed = f"[...{box}.querySelectorAll('.step')].map({added_in})"
    added = shown.run(changed)
    child, grandchild = tasks[f"{root}/r1"].instruction, tasks[f"{root}/r2"].instruction
    assert added == ["", child.removeprefix(tasks[root].instruction), grandchild.removeprefix(child)]
    shown.run("document.getElementById('against').value = 'seed'")
    shown.run("document.getElementById('against').dispatchEvent(new Event('input'))")
    assert shown.run(changed)[2] == grandchild.removeprefix(tasks[root].instruction)
    answers = shown.run(f"[...{box}.querySelectorAll('.step details pre')].map(one => one.textContent)")
    assert answers == [tasks[name].output for name in (root, f"{root}/r1", f"{root}/r2")]


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("sort a list", "sort a long list", [["same", "sort a "], ["added", "long "], ["same", "list"]]),
        ("a b", "a b", [["same", "a b"]]),
        ("", "new", [["added", "new"]]),
        ("old", "", [["removed", "old"]]),
        ("x = 1\n", "x = 2\n", [["same", "x = "], ["removed", "1"], ["added", "2"], ["same", "\n"]]),
        ("über a<b", "über a>b", [["same", "über a"], ["removed", "<"], ["added", ">"], ["same", "b"]]),
        ("a " * 2500, "b " * 2500, None),
    ],
)
def test_changes_by_hand(shown: Chromium, before: str, after: str, parts):
    assert shown.run(f"changes({json.dumps(before)}, {json.dumps(after)})") == parts


def test_lineages_can_be_searched_and_filtered(shown: Chromium, evolved: Path):
    def listed(**fields: str) -> set[str]:
        for field, value in fields.items():
            shown.run(f"document.getElementById('{field}').value = {json.dumps(value)}")
        shown.run("filter()")
        return set(shown.run(LISTED))

    assert listed(search="task 7.") == {"s07"}
    assert listed(search="nowhere") == set()
    kept = list(read_records(evolved / "evolved.jsonl", EvolvedTask))
    rejected = list(read_records(evolved / "rejected.jsonl", EvolvedTask))
    assert listed(search="", outcome="-judged_equal") == {task.root for task in rejected}
    deepened = {task.root for task in kept if task.operation == "in_depth/deepen"}
    assert listed(outcome="kept", operation="in_depth/deepen") == deepened
    assert shown.run("document.getElementById('count').textContent") == f"{len(deepened)} of 25"


def test_hostile_texts_stay_texts_and_nothing_is_fetched(shown: Chromium, written: Path):
    shown.run("document.querySelectorAll('details.lineage').forEach(one => one.open = true)")
    assert (
        shown.run("new Promise(done => setTimeout(() => done(document.querySelectorAll('.step').length), 100))") == 75
    )
    assert shown.run("document.querySelectorAll('main img, main script, main b').length") == 0
    assert "owned" not in shown.run("document.title")
    assert "onerror=" in shown.run("document.getElementById('list').innerText")
    assert shown.requests() == [written.resolve().as_uri()]
    assert shown.complaints() == []


def test_it_suits_a_phone_and_the_dark(shown: Chromium):
    inks = []
    for scheme in ("light", "dark"):
        shown.prefer(scheme)
        inks.append(shown.run("getComputedStyle(document.body).color"))
    assert inks[0] != inks[1]
    shown.resize(390, 800)
    try:
        assert shown.run("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
    finally:
        shown.resize(1280, 900)


def test_a_run_without_scores_prices_and_rejections(make_run, chromium: Chromium, tmp_path: Path):
    calls = CallsConfig(evolve=CallConfig(max_new_tokens=64), answer=CallConfig(max_new_tokens=65))
    config = make_run(seeds=1, prices=None, calls=calls, rounds=1, seed=5)
    assert main(["insight", str(config.out), "--html", str(tmp_path / "page.html")]) == 0
    chromium.open(tmp_path / "page.html")
    assert [line[0] for line in table(chromium, "growth") if line[0]] == ["Instructions", "Answers"]
    assert "Too few instructions" in chromium.run("document.body.innerText")
    assert "The config gave no prices." in chromium.run("document.body.innerText")
    assert chromium.complaints() == []


def test_a_run_whose_budget_ended_says_so(make_run):
    with pytest.raises(Exception, match="budget: ") as error:
        make_run(budget=BudgetConfig(max_tokens=3000))
    folder = Path(str(error.value).split("exceed it; ")[1].split(" holds")[0])
    assert "The budget ended before the run did" in page.render_page(read_run(folder))


def test_seeds_alone_are_a_run_too(make_run):
    text = page.render_page(read_run(make_run(rounds=0).out))
    assert "No evolution was tried." in text and "25 seeds and 0 evolutions" in text


def test_every_reason_that_the_rules_have_is_explained():
    for reason in (*DETECTED, "judged_equal", "judged_unclear", "apology", "leak", "unchanged", "contaminated"):
        assert page.REASONS[reason]
    for what in ("evolution", "answer"):
        for end in ("empty", "truncated", "filtered", "too_long", "unfinished"):
            assert page.REASONS[f"{what}_{end}"]


def test_a_drawing_by_hand():
    chart = lay_out("Answers", "words", {0: [10] * 10, 1: [], 2: list(range(1, 101))})
    assert chart is not None
    first, second = chart.columns
    assert (first.label, first.low, first.high) == ("seeds", first.median, first.mean)
    assert (second.spread.low, second.spread.median, second.spread.high, second.spread.mean) == (11, 51, 91, 50.5)
    assert [label for _, label in chart.marks] == ["0", "50", "100"]
    assert lay_out("Difficulty", "of 10", {0: []}) is None
