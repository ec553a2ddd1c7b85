"""Renders the report of an evolve run as one HTML page that needs no network, safe for whatever a model wrote.

Texts reach the page through the template, which escapes, or as JSON in a data block, where every "<" is written as
\\u003c; the script lays them onto the page as text, never as markup. The page's policy lets no other script run.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jaxwiz import __version__
from jaxwiz.evaluate.page_data import page_text
from jaxwiz.evolve.detectors import DETECTED
from jaxwiz.html_page import page_environment
from jaxwiz.insight.growth import Chart, lay_out
from jaxwiz.insight.rows import Run
from jaxwiz.insight.topics import find_topics
from jaxwiz.records import EvolvedTask

REASONS = {
    "judged_equal": "rule 1: the judge called it equal to its parent",
    "judged_unclear": "the judge's reply was no verdict",
    "apology": "rule 2: the answer is sorry, in fewer than 80 words",
    "answer_empty": "rule 3: the answer is punctuation and stop words",
    "evolution_empty": "rule 3: the evolution is punctuation and stop words",
    "leak": "rule 4: it copies the prompt's own wording",
    "unchanged": "it is its parent",
    "contaminated": "it holds a benchmark's task",
    "answered_instead": "it answers its parent",
    "asks_back": "it asks for a task",
    "answer_asks_back": "the answer asks for a task",
    "added_words_only": "the parent's code and words, with more words",
    "near_duplicate": "nearly a kept row",
    "answer_does_not_parse": "the answer's Python does not parse",
    "answer_does_not_run": "the answer's Python fails",
    "answer_does_not_end": "the answer's Python does not end",
}
_ENDINGS = {
    "truncated": "was cut at its longest",
    "filtered": "was filtered by the endpoint",
    "too_long": "had too long a prompt",
    "unfinished": "ended in an unknown way",
}
REASONS |= {f"{what}_{end}": f"the {what} {how}" for what in ("evolution", "answer") for end, how in _ENDINGS.items()}

COLOURS = 5  # of reasons; from the fifth on they share one

_FOLDER = Path(__file__).parent
_STYLE_OF_REPORTS = resources.files("jaxwiz.evaluate") / "report.css"


def render_page(run: Run) -> str:
    """Returns the page as HTML."""
    environment = page_environment(_FOLDER, count=lambda number: f"{number:,}", percent=_percent, shown=page_text)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    statistics = run.statistics
    tried = sum(one["tried"] for one in statistics["rounds"])
    kept = sum(one["kept"] for one in statistics["rounds"])
    page = environment.get_template("page.html").render(
        run=run,
        statistics=statistics,
        version=__version__,
        seeds=statistics["seeds"],
        tried=tried,
        kept=kept,
        rows=kept + statistics["seeds"]["kept"],
        rounds=statistics["rounds"],
        outcomes=outcomes(statistics),
        operations=operations(statistics),
        reasons=reasons(statistics),
        charts=charts(run),
        topics=find_topics(run.texts),
        cost=cost(statistics),
        names=sorted({name for one in statistics["rounds"] for name in one["operations"]}),
        data=Markup(json.dumps([_lineage(rows) for rows in run.lineages.values()]).replace("<", "\\u003c")),
        style=Markup(_STYLE_OF_REPORTS.read_text(encoding="utf-8") + (_FOLDER / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # without lone surrogates, which no file can hold


def outcomes(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns for each round the parts of its items: kept, then rejected by each reason, in an order of all rounds."""
    names = [one["name"] for one in reasons(statistics)]
    found = []
    for one in statistics["rounds"]:
        parts = [(name, one["rejected"].get(name, 0), min(place, COLOURS - 1)) for place, name in enumerate(names)]
        found.append({"round": one["round"], "tried": one["tried"], "kept": one["kept"], "parts": parts})
    return found


def operations(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns for each operation what all rounds tried and kept of it, its reasons, and its acceptance by round."""
    names = sorted({name for one in statistics["rounds"] for name in one["operations"]})
    found = []
    for name in names:
        by_round = [
            one["operations"].get(name, {"tried": 0, "kept": 0, "rejected": {}}) for one in statistics["rounds"]
        ]
        counted: Counter[str] = sum((Counter(one["rejected"]) for one in by_round), Counter())
        found.append(
            {
                "name": name,
                "tried": sum(one["tried"] for one in by_round),
                "kept": sum(one["kept"] for one in by_round),
                "reasons": counted.most_common(3),
                "by_round": [(one["kept"], one["tried"]) for one in by_round],
            }
        )
    return found


def reasons(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns for each reason what it means, whether a detector found it, and how often each round had it."""
    by_round = [statistics["seeds"]["rejected"], *(one["rejected"] for one in statistics["rounds"])]
    total: Counter[str] = sum((Counter(one) for one in by_round), Counter())
    return [
        {
            "name": name,
            "meaning": REASONS.get(name, ""),
            "is_detected": name in DETECTED,
            "count": count,
            "by_round": [one.get(name, 0) for one in by_round],
        }
        for name, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    ]


def charts(run: Run) -> list[Chart]:
    """Returns the drawings of growth: instructions, answers, and difficulty if it was scored."""
    laid_out = (
        lay_out("Instructions", "words", {number: one.instruction_words for number, one in run.measures.items()}),
        lay_out("Answers", "words", {number: one.answer_words for number, one in run.measures.items()}),
        lay_out("Difficulty", "of 10", {number: one.difficulties for number, one in run.measures.items()}, highest=10),
    )
    return [chart for chart in laid_out if chart is not None]


def cost(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the calls' table: lines by round and kind, their sum, and what a row cost."""
    lines = statistics["calls"]
    columns = ("calls", "prompt_tokens", "new_tokens", "cost")
    total = {name: sum(line[name] or 0 for line in lines) for name in columns}
    rows = statistics["seeds"]["kept"] + sum(one["kept"] for one in statistics["rounds"])
    return {
        "lines": sorted(lines, key=lambda line: line["round"]),
        "total": total,
        "tokens": total["prompt_tokens"] + total["new_tokens"],
        "currency": statistics["currency"],
        "of_a_row": total["cost"] / rows if rows else None,
    }


def _lineage(rows: Sequence[EvolvedTask]) -> list[dict[str, Any]]:
    return [
        {
            "id": page_text(task.id),
            "parent": page_text(task.parent),
            "round": task.round,
            "operation": task.operation,
            "attempt": task.attempt,
            "rejected": task.rejected,
            "difficulty": task.difficulty,
            "instruction": page_text(task.instruction),
            "input": page_text(task.input),
            "output": page_text(task.output),
        }
        for task in rows
    ]


def _percent(part: float, whole: float = 1.0) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"
