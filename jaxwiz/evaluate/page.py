"""Renders the report as one HTML page that needs no network, safe for whatever a program contains.

What programs and models wrote reaches the page in two ways only: through the template, which escapes, or as JSON in
data blocks, where every "<" is written as \\u003c. The script puts it on the page as text, never as markup. And
the page's policy lets no script run but that one, by its hash, and nothing be fetched.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jaxwiz.evaluate.curve import lay_out_curve
from jaxwiz.evaluate.page_data import PageData, PageSystem, choose_page_data, page_text
from jaxwiz.evaluate.provenance import is_unknown
from jaxwiz.evaluate.report import tally
from jaxwiz.evaluate.summary import caveats, conclusions, samples_text
from jaxwiz.evaluate.training import Training
from jaxwiz.html_page import page_environment
from jaxwiz.problems.problem import Problem
from jaxwiz.records import Verdict

_FOLDER = Path(__file__).parent
_SYMBOLS = {"passed": "✓", "failed": "✗", "timed_out": "◷", "mixed": "◐"}
_SETTINGS = (  # of sampling, in the order of the page: the ones that move a score most come first
    "samples_per_task",
    "temperature",
    "top_p",
    "top_k",
    "max_new_tokens",
    "template",
    "prompt_style",
    "extraction",
    "dtype",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One system's result on one task.

    Attributes:
      status: "passed" if all samples did, "mixed" if some did, else the first sample's outcome.
      passed: how many samples passed.
      samples: how many there are.
      base_passed: how many passed the base tests; None without plus tests.
      detail: why the first sample that did not pass failed.
    """

    status: str
    passed: int
    samples: int
    base_passed: int | None
    detail: str

    @property
    def rate(self) -> float:
        """The share of samples that passed."""
        return self.passed / self.samples

    @property
    def base_only(self) -> bool:
        """Whether more samples pass the base tests than pass all."""
        return self.base_passed is not None and self.base_passed > self.passed


def render_page(
    report: Mapping[str, Any],
    problems: Mapping[str, Problem],
    systems: Sequence[PageSystem],
    training: Training | None,
    most_text_bytes: int,
    notes: Sequence[str] = (),
) -> str:
    """Returns the page as HTML.

    Args:
      report: what `build_report` returned.
      problems: the tasks that were scored.
      systems: those of the report, in its order.
      training: what the train stage measured, if it is known.
      most_text_bytes: most text of samples on the page.
      notes: further sentences that a reader should know.
    """
    environment = page_environment(_FOLDER, percent=lambda share: f"{100 * share:.1f}%", loss=_loss, shown=page_text)
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    data = choose_page_data(problems, systems, most_text_bytes)
    cells = [_cells(system.verdicts) for system in systems]
    return environment.get_template("report.html").render(
        report=report,
        labels=list(report["systems"]),
        conclusions=conclusions(report),
        notes=[*caveats(report), *notes],
        curve=lay_out_curve(training.curve, training.heldout_curve) if training else None,
        facts=_facts(training),
        rows=[(problem, [of_system[task_id] for of_system in cells]) for task_id, problem in problems.items()],
        symbols=_SYMBOLS,
        settings=_settings(report),
        data=data,
        page_text_mib=most_text_bytes >> 20,
        sources=[system.source for system in systems],
        blocks=_blocks(data, systems),
        samples_text=samples_text,
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _cells(verdicts: Sequence[Verdict]) -> dict[str, Cell]:
    """Returns {task id: cell} of one system."""
    with_base = any(verdict.base_outcome for verdict in verdicts)
    base = tally(verdicts, base=True)
    first_fault: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.outcome != "passed":
            first_fault.setdefault(verdict.task_id, verdict)
    cells = {}
    for task_id, count in tally(verdicts).items():
        fault = first_fault.get(task_id)
        status = "passed" if fault is None else "mixed" if count.passed else fault.outcome
        detail = "" if fault is None else _fault_text(fault)
        cells[task_id] = Cell(
            status, count.passed, count.samples, base[task_id].passed if with_base else None, page_text(detail)
        )
    return cells


def _fault_text(verdict: Verdict) -> str:
    """Returns in a line why a sample did not pass."""
    if verdict.input and verdict.expected and verdict.actual:
        return f"{verdict.input}: {verdict.actual} instead of {verdict.expected}"
    return verdict.detail or verdict.reason


def _blocks(data: PageData, systems: Sequence[PageSystem]) -> list[Markup]:
    """Returns the page's data as JSON that no HTML parser can mistake for markup: first all systems, then each task."""
    head = {"labels": [system.label for system in systems], "sources": [page_text(system.source) for system in systems]}
    tasks = [{"texts": list(task.texts), "systems": task.systems} for task in data.tasks.values()]
    return [Markup(json.dumps(block, ensure_ascii=False).replace("<", "\\u003c")) for block in (head, *tasks)]


def _settings(report: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """Returns (name, value of each system) of what moved the systems' numbers, for a table."""
    systems = list(report["systems"].values())

    def setting(system: Mapping[str, Any], name: str) -> Any:
        sampling = system["sampling"]
        return sampling if is_unknown(sampling) else sampling.get(name, {"unknown": "not in the sample stage's config"})

    def model(system: Mapping[str, Any], name: str) -> Any:
        return system["model"] if is_unknown(system["model"]) else system["model"][name]

    def counted(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{word.replace('_', ' ')} {count}" for word, count in counts.items() if count) or "none"

    def how(name: str) -> tuple[str, list[Any]]:
        return name.replace("_", " "), [setting(system, name) for system in systems]

    if all(is_unknown(system["sampling"]) for system in systems):
        rows = [("how it was sampled", [system["sampling"] for system in systems])]
    else:
        rows = [how(name) for name in _SETTINGS]
    rows += [
        ("model", [model(system, "checkpoint") for system in systems]),
        ("model's SHA-256", [model(system, "sha256") for system in systems]),
        ("completions", [system["completions"]["file"] for system in systems]),
        ("completions' SHA-256", [system["completions"]["sha256"] for system in systems]),
        ("reasons", [counted(system["reasons"]) for system in systems]),
        ("forgeable verdicts", [str(system["forgeable"]["verdicts"]) for system in systems]),
        ("differs by design", [counted(system["differs_by_design"]) for system in systems]),
    ]
    return rows


def _facts(training: Training | None) -> list[tuple[str, str]]:
    """Returns (name, value) of what the train stage measured beside the losses, for people."""
    if training is None:
        return []
    formats = {
        "steps": ("steps", "{:,.0f}"),
        "train_tokens": ("tokens trained on", "{:,.0f}"),
        "tokens_per_s": ("tokens a second", "{:,.0f}"),
        "mfu": ("model FLOPs utilisation", "{:.1%}"),
    }
    return [(name, form.format(training.facts[key])) for key, (name, form) in formats.items() if key in training.facts]


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
