"""The cleaning's report: cleaning.json for programs, and cleaning.html for people, one file that needs no network.

The page shows what was left out, by which tier, of which benchmark task, and each contaminated row beside the task
that was found in it. Rows are untrusted text: they reach the page escaped, and the page allows no script at all.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from jaxwiz import files
from jaxwiz.clean.run import CONTAMINATED, SUMMARY
from jaxwiz.clean.tasks import CleanError
from jaxwiz.html_page import page_environment

MOST_SHOWN = 500  # contaminated rows on the page
MOST_CHARACTERS = 6000  # of each text on the page
MARKED_RUN_WORDS = 5

TIERS = {
    "equal": "the whole text is a benchmark's",
    "contained": "a benchmark's text stands within",
    "runs": "runs of words in common",
    "example": "function name and documented example",
    "tests": "the answer passes the tests",
}

_FOLDER = Path(__file__).parent
_WORD = re.compile(r"\w+")


def write_report(work: Path, out: Path) -> None:
    """Writes cleaning.json and cleaning.html to `out`.

    Args:
      work: the folder of a `find_exclusions` that has given all its answers.
      out: where to write.

    Raises:
      CleanError: `work` holds no finished cleaning.
    """
    try:
        summary = json.loads((work / SUMMARY).read_text(encoding="utf-8"))
        rows = list(_rows(work / CONTAMINATED))
    except FileNotFoundError as error:
        raise CleanError(f"{error.filename}: not there; clean the rows to their end before the report") from None
    listed = [{"key": text["key"], **hit} for hit, text in rows]
    files.write_text(out / "cleaning.json", json.dumps({**summary, "contaminated": listed}, indent=1) + "\n")
    files.write_text(out / "cleaning.html", render_page(summary, rows))


def render_page(summary: Mapping[str, Any], rows: Sequence[tuple[Mapping[str, str], Mapping[str, str]]]) -> str:
    """Returns the page as HTML.

    Args:
      summary: what `find_exclusions` counted.
      rows: (hit, text) of each contaminated row.
    """
    environment = page_environment(
        _FOLDER, count=lambda number: f"{number:,}", share=lambda part: _share(part, summary["rows"])
    )
    shown = [_pair(summary, hit, text) for hit, text in rows[:MOST_SHOWN]]
    page = environment.get_template("report.html").render(
        summary=summary,
        tiers=TIERS,
        shown=shown,
        hidden=len(rows) - len(shown),
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates, which no file can hold


def marked(text: str, other: str) -> Markup:
    """Returns a text, cut and escaped, in which the runs of five words that it shares with another are marked."""
    text = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    theirs = [match.group().lower() for match in _WORD.finditer(other)]
    common = {tuple(theirs[start : start + MARKED_RUN_WORDS]) for start in range(len(theirs) - MARKED_RUN_WORDS + 1)}
    words = list(_WORD.finditer(text))
    ours = [match.group().lower() for match in words]
    parts, done = [], 0
    for begin, end in _joined(
        start for start in range(len(ours)) if tuple(ours[start : start + MARKED_RUN_WORDS]) in common
    ):
        first, last = words[begin].start(), words[end].end()
        parts.append(escape(text[done:first]) + Markup("<mark>{}</mark>").format(text[first:last]))
        done = last
    return Markup("").join([*parts, escape(text[done:])])


def _joined(starts: Iterator[int]) -> list[tuple[int, int]]:
    """Returns (first, last) word of each stretch that runs beginning at `starts` cover."""
    stretches: list[tuple[int, int]] = []
    for start in starts:
        end = start + MARKED_RUN_WORDS - 1
        if stretches and start <= stretches[-1][1] + 1:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((start, end))
    return stretches


def _pair(summary: Mapping[str, Any], hit: Mapping[str, str], text: Mapping[str, str]) -> dict[str, Any]:
    task = summary["texts"][hit["task_id"]]
    row, theirs = f"{text['instruction']}\n{text['answer']}", f"{task['question']}\n{task['solution']}"
    return {
        **hit,
        "key": text["key"],
        "benchmarks": summary["tasks"][hit["task_id"]]["benchmarks"],
        "instruction": marked(text["instruction"], theirs),
        "answer": marked(text["answer"], theirs),
        "question": marked(task["question"], row),
        "solution": marked(task["solution"], row),
    }


def _rows(path: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            hit, text = json.loads(line)
            yield hit, text


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0%"
