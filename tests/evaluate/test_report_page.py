"""The report's page in a real browser: filters, programs, samples, keyboard, dark mode, and hostile texts."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxwiz.evaluate.page_data import MOST_CHARACTERS, PageSystem, choose_page_data, page_text
from jaxwiz.problems.problem import Problem
from jaxwiz.records import Completion, Verdict
from tests.chromium import Chromium

Finish = Callable[..., Path]

VISIBLE = "[...document.querySelectorAll('tr.task')].filter(row => !row.hidden).map(row => row.id)"


def choose(browser: Chromium, control: str, value: str, system: int | None = None) -> None:
    """Picks an option as a user does: the value, and for which system where several have it."""
    place = "" if system is None else f" && one.dataset.system === '{system}'"
    browser.run(
        f"(() => {{ const list = document.getElementById('{control}');"
        f"list.selectedIndex = [...list.options].findIndex(one => one.value.endsWith('{value}'){place});"
        "list.dispatchEvent(new Event('input')); })()"
    )


def test_two_systems_side_by_side(chromium: Chromium, finish: Finish) -> None:
    ids = [f"HumanEval/{number}" for number in range(6)]
    first = dict(zip(ids, "ppftfb", strict=True))
    second = dict(zip(ids, "fppfff", strict=True))
    chromium.open(finish("two", {"first": first, "second": second}) / "report.html")
    assert chromium.run(VISIBLE) == ids

    choose(chromium, "systems", "better")
    assert chromium.run(VISIBLE) == ["HumanEval/2"]
    choose(chromium, "systems", "worse")
    assert chromium.run(VISIBLE) == ["HumanEval/0"]
    assert chromium.run("document.getElementById('count').textContent") == "1 of 6 tasks"
    choose(chromium, "systems", "differ")
    assert chromium.run(VISIBLE) == ["HumanEval/0", "HumanEval/2"]
    choose(chromium, "systems", "none")
    assert chromium.run(VISIBLE) == ["HumanEval/3", "HumanEval/4", "HumanEval/5"]
    choose(chromium, "systems", "")
    choose(chromium, "verdict", "timed_out", system=0)
    assert chromium.run(VISIBLE) == ["HumanEval/3"]
    choose(chromium, "verdict", "base", system=0)
    assert chromium.run(VISIBLE) == ["HumanEval/5"]
    choose(chromium, "verdict", "")

    chromium.run("document.querySelector('tr.task button').click()")
    answers = chromium.run("[...document.querySelectorAll('.detail .answer')].map(one => one.innerText)")
    assert len(answers) == 2
    assert "✓ passed" in answers[0] and "return 'first', 0" in answers[0]
    assert "✗ failed" in answers[1] and "return 'second', 0" in answers[1]
    for label in ("reason", "message", "input", "expected", "returned"):
        assert label in answers[1]
    assert chromium.run("document.querySelectorAll('.detail pre .only').length") == 2  # the line in which they differ
    assert "has_close_elements" in chromium.run("document.querySelector('.detail details pre').textContent")
    assert chromium.complaints() == []


def test_search_looks_into_code_and_messages(chromium: Chromium, finish: Finish) -> None:
    texts = {"code": "    return special_helper(3)\n", "detail": "TypeError: nope"}
    outcomes = {"HumanEval/0": "p", "HumanEval/1": "f"}
    chromium.open(finish("search", {"m": outcomes}, texts) / "report.html")
    for text, expected in (
        ("SPECIAL_helper", ["HumanEval/0", "HumanEval/1"]),
        ("typeerror", ["HumanEval/1"]),
        ("separate_paren", ["HumanEval/1"]),
        ("nowhere", []),
    ):
        chromium.press("/")
        chromium.type(text)
        assert chromium.run(VISIBLE) == expected
        chromium.press("Escape")
        assert len(chromium.run(VISIBLE)) == 2
        chromium.run("document.activeElement.blur()")


def test_everything_by_keyboard(chromium: Chromium, finish: Finish) -> None:
    chromium.open(finish("keys", {"m": {"HumanEval/0": "ppf", "HumanEval/1": "fff"}}) / "report.html")
    focused = "document.activeElement.textContent || document.activeElement.getAttribute('aria-label')"
    for _ in range(10):
        chromium.press("Tab")
        if chromium.run(focused) == "HumanEval/0":
            break
    chromium.press("ArrowDown")
    assert chromium.run(focused) == "HumanEval/1"
    chromium.press("ArrowUp")
    chromium.press("Enter")
    assert chromium.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    # The first failing sample is shown first; the arrow keys lead to the others.
    assert "return 'm', 2" in chromium.run("document.querySelector('.answer').innerText")
    chromium.run("document.querySelector('.strip [aria-pressed=true]').focus()")
    chromium.press("ArrowRight")
    assert chromium.run(focused) == "sample 0: passed"
    assert "return 'm', 0" in chromium.run("document.querySelector('.answer').innerText")
    chromium.press("ArrowLeft")
    assert chromium.run(focused) == "sample 2: failed"
    chromium.press("Escape")
    assert chromium.run(focused) == "HumanEval/0"
    assert chromium.run("document.querySelectorAll('.detail').length") == 0


def test_an_address_opens_its_task(chromium: Chromium, finish: Finish) -> None:
    page = finish("address", {"m": {f"HumanEval/{number}": "f" for number in range(40)}}) / "report.html"
    chromium.open(page, "#HumanEval/33")
    assert chromium.run("document.querySelector('.detail').previousElementSibling.id") == "HumanEval/33"
    top = "document.getElementById('HumanEval/33').getBoundingClientRect().top"
    assert 0 <= chromium.run(top) < 300


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(chromium: Chromium, finish: Finish, scheme: str) -> None:
    page = finish(
        "scheme", {"a": {"HumanEval/0": "p", "HumanEval/1": "t"}, "b": {"HumanEval/0": "f", "HumanEval/1": "p"}}
    )
    chromium.prefer(scheme)
    try:
        chromium.open(page / "report.html", "#HumanEval/0")
        found = chromium.run(
            """[...document.querySelectorAll('main *')].filter(one => [...one.childNodes].some(
                 node => node.nodeType === 3 && node.data.trim())).map(one => {
               let behind = one, color = 'rgba(0, 0, 0, 0)';
               for (; behind && color === 'rgba(0, 0, 0, 0)'; behind = behind.parentElement)
                 color = getComputedStyle(behind).backgroundColor;
               return [getComputedStyle(one).color, color, one.tagName + '.' + one.className];
             })"""
        )
    finally:
        chromium.prefer("light")
    dark = scheme == "dark"
    body = [back for _, back, _ in found]
    assert (sum(map(luminance, body)) / len(body) < 0.2) == dark
    for ink, back, where in found:
        bright, dim = sorted((luminance(ink), luminance(back)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{where}: {ink} on {back}"  # WCAG 2.2, level AA


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(chromium: Chromium, finish: Finish, width: int) -> None:
    page = finish("narrow", {"a": {"HumanEval/0": "pf"}, "b": {"HumanEval/0": "fp"}}, {"code": "x = 1  # " + "y" * 300})
    chromium.resize(width, 800)
    try:
        chromium.open(page / "report.html", "#HumanEval/0")
        assert chromium.run("document.documentElement.scrollWidth") <= width
    finally:
        chromium.resize(1280, 900)


HOSTILE = (
    "</script><script>window.forged = 1</script>",
    "</pre></td></table><img src=x onerror='window.forged = 2'>",
    "<svg onload='window.forged = 3'><style>body{display:none}</style>",
    "<!--<script>window.forged = 4//",
    "{{ 7 * 7 }}{% raw %} ${window.forged = 5} \\u003cscript\\u003ewindow.forged = 6\\u003c/script\\u003e",
    "javascript:window.forged = 7",
    "\u2028\u2029\x00\x1b[31m\ud800 \ufeff\u202e' \" ` <a href=//example.invalid/>",
)


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_texts_stay_texts(chromium: Chromium, finish: Finish, evil: str) -> None:
    texts = dict.fromkeys(("code", "raw", "prompt", "detail", "input", "expected", "actual"), evil)
    folder = finish("evil", {"m": {"HumanEval/0": "f", "HumanEval/1": "pf"}}, texts)
    page = folder / "report.html"
    chromium.open(page)
    # The page's own policy must not be the only thing in the way: what it blocks would be a complaint.
    chromium.run("document.querySelectorAll('tr.task button').forEach(button => button.click())")
    chromium.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert chromium.run("window.forged") is None
    assert chromium.run("document.querySelectorAll('script').length") == 4  # data of systems and two tasks, ours
    assert chromium.run("document.querySelectorAll('main img, main svg, main style, main a, iframe').length") == 0
    assert (
        chromium.run(
            "[...document.querySelectorAll('*')].some(one => [...one.attributes].some("
            "attribute => attribute.name.startsWith('on')))"
        )
        is False
    )
    shown = chromium.run("document.querySelectorAll('.answer pre')[0].textContent")
    assert shown == page_text(evil).replace("\r", "")
    assert chromium.run("document.querySelectorAll('.answer').length") == 2
    assert chromium.complaints() == []
    assert chromium.requests() == [page.resolve().as_uri()]


class Tags(HTMLParser):
    """The tags of a page, and where they lead."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_texts_add_no_markup(finish: Finish, evil: str) -> None:
    """The same as far as it shows without a browser."""
    texts = dict.fromkeys(("code", "raw", "prompt", "detail", "input", "expected", "actual"), evil)
    outcomes = {"m": {"HumanEval/0": "f", "HumanEval/1": "pf"}}
    harmless, hostile = Tags(), Tags()
    harmless.feed((finish("harmless", outcomes) / "report.html").read_text(encoding="utf-8"))
    page = (finish("evil", outcomes, texts) / "report.html").read_text(encoding="utf-8")
    hostile.feed(page)
    assert hostile.tags == harmless.tags
    assert hostile.addresses == harmless.addresses == ["data:,", "#tasks"]
    assert not re.search(r"url\(|@import", page)


def test_nothing_is_fetched_and_other_scripts_are_refused(chromium: Chromium, finish: Finish) -> None:
    page = finish("policy", {"m": {"HumanEval/0": "p"}}) / "report.html"
    broken = page.with_name("broken.html")
    broken.write_text(page.read_text().replace("</main>", "</main><script>window.forged = 1</script>"))
    chromium.open(broken)
    assert chromium.run("window.forged") is None
    assert any("Content Security Policy" in complaint for complaint in chromium.complaints())
    chromium.run("fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert any("Content Security Policy" in complaint for complaint in chromium.complaints())


def test_200_samples_a_task_stay_within_the_limit(chromium: Chromium, finish: Finish) -> None:
    outcomes = {f"HumanEval/{number}": "pf" * 100 for number in range(164)}
    texts = {"code": "".join(f"    value_{line} = {line} * 17  # padding\n" for line in range(12)), "prompt": "p" * 400}
    folder = finish("many", {"m": outcomes}, texts, page_text_mib=1)
    page = folder / "report.html"
    assert page.stat().st_size < 3 << 20
    chromium.open(page)
    note = chromium.run("document.getElementById('tasks').innerText")
    shown = re.search(r"The texts of ([\d,]+) of 32,800 samples are on this page, which holds at most 1 MiB", note)
    assert shown and 2 * 164 <= int(shown[1].replace(",", "")) < 32_800
    chromium.run("document.querySelectorAll('tr.task button')[163].click()")
    assert chromium.run("document.querySelectorAll('.strip button').length") == 200
    assert "value_3 = 3" in chromium.run("document.querySelector('.answer').innerText")
    chromium.run("document.querySelectorAll('.strip button')[199].click()")
    left_out = chromium.run("document.querySelector('.answer').innerText")
    assert "left out of this page" in left_out
    assert "task_id HumanEval/163, sample 199" in left_out


def test_what_is_shown_is_shared_out_evenly(problems: dict[str, Problem]) -> None:
    completions, verdicts = [], []
    for task_id in problems:
        for sample in range(50):
            code = f"{sample:03d}".ljust(100, "x")
            completions.append(
                Completion(
                    task_id=task_id, sample=sample, prompt="", raw="", completion=code, finish_reason="", new_tokens=0
                )
            )
            outcome = "failed" if sample == 30 else "passed"
            verdicts.append(Verdict(system="m", task_id=task_id, sample=sample, outcome=outcome, detail=""))
    each = 100 + 150  # bytes of the code, and of what refers to it
    data = choose_page_data(problems, [PageSystem("m", verdicts, completions, "file")], 10 * each * len(problems))
    for task in data.tasks.values():
        positions = list(task.systems[0]["shown"])
        assert 8 <= len(positions) <= 14
        assert positions[:3] == ["0", "30", "1"]  # the first, the first of each other outcome, then in order
    counts = [len(task.systems[0]["shown"]) for task in data.tasks.values()]
    assert max(counts) - min(counts) <= 1
    assert (data.shown, data.samples) == (sum(counts), 200)
    everything = choose_page_data(problems, [PageSystem("m", verdicts, completions, "file")], 1 << 20)
    assert everything.shown == everything.samples


def test_a_cut_text_says_so() -> None:
    assert page_text("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert page_text("x" * (MOST_CHARACTERS + 1500)).endswith("x\n[cut here: 1,500 more characters]")


def test_data_blocks_hold_what_was_given(finish: Finish) -> None:
    page = (finish("blocks", {"m": {"HumanEval/0": "b", "HumanEval/1": "p"}}) / "report.html").read_text()
    blocks = [json.loads(text) for text in re.findall(r'class="data">(.*?)</script>', page)]
    assert blocks[0]["labels"] == ["m"]
    system = blocks[1]["systems"][0]
    assert (system["outcomes"], system["base"]) == ("f", "p")
    assert blocks[1]["texts"][system["shown"]["0"]["code"]] == "    return 'm', 0\n"
    assert system["shown"]["0"]["expected"] == "expected"


def test_every_control_has_a_name(chromium: Chromium, finish: Finish) -> None:
    outcomes = {"HumanEval/0": "pf", "HumanEval/1": "fb"}
    chromium.open(finish("names", {"a": outcomes, "b": outcomes}) / "report.html", "#HumanEval/0")
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in ("button", "searchbox", "combobox", "image", "form", "search")
    ]
    assert {role for role, _ in controls} >= {"button", "searchbox", "combobox", "image"}
    assert all(name.strip() for _, name in controls), controls
    assert ("button", "sample 1: failed") in controls
    assert ("combobox", "Verdict") in controls
