"""Renders the report as one HTML page that needs no network and no script, safe for whatever a program contains."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jaxwiz.evaluate.curve import lay_out_curve
from jaxwiz.evaluate.report import Training, conclusions, samples_text
from jaxwiz.problems.humaneval import Problem
from jaxwiz.records import Completion, Verdict

MOST_CHARACTERS = 20_000  # of one text on the page; verdicts.jsonl and the completions hold all
OPENED_TASKS = 3


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one system made of one task, its first sample standing for the others.

    Attributes:
      system: label.
      samples: how many samples it has.
      passed: how many of them passed.
      completion: the first sample.
      verdict: of the first sample.
    """

    system: str
    samples: int
    passed: int
    completion: Completion
    verdict: Verdict

    @property
    def status(self) -> str:
        """The word "passed" if all samples did, "mixed" if some did, else the first sample's outcome."""
        if self.passed == self.samples:
            return "passed"
        return "mixed" if self.passed else self.verdict.outcome


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One task with every system's answer, and whether the last system does "better", "worse" or the "same"."""

    problem: Problem
    anchor: str
    answers: tuple[Answer, ...]
    change: str
    opened: bool


def render_page(
    report: Mapping[str, Any],
    training: Training | None,
    problems: Mapping[str, Problem],
    completions: Mapping[str, Sequence[Completion]],
    verdicts: Sequence[Verdict],
) -> str:
    """Returns the page as HTML.

    Args:
      report: what `build_report` returned.
      training: what the train stage measured, if it is known.
      problems: the tasks that were scored.
      completions: by system label.
      verdicts: of every system.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=lambda share: f"{100 * share:.1f}%", shown=_shown, loss=_loss)
    return environment.get_template("report.html").render(
        report=report,
        conclusions=conclusions(report),
        curve=lay_out_curve(training.curve, training.heldout_curve) if training else None,
        facts=_facts(training),
        rows=_rows(problems, completions, verdicts),
        samples_text=samples_text,
        temperature={label: _find(system["sampling"], "temperature") for label, system in report["systems"].items()},
    )


def _rows(
    problems: Mapping[str, Problem],
    completions: Mapping[str, Sequence[Completion]],
    verdicts: Sequence[Verdict],
) -> list[TaskRow]:
    by_task: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        by_task.setdefault((verdict.system, verdict.task_id), []).append(verdict)
    first_sample: dict[tuple[str, str], Completion] = {}
    for system, written in completions.items():
        for completion in written:
            first_sample.setdefault((system, completion.task_id), completion)
    rows: list[TaskRow] = []
    for number, (task_id, problem) in enumerate(problems.items()):
        answers = tuple(
            _answer(system, by_task[system, task_id], first_sample[system, task_id]) for system in completions
        )
        gain = answers[-1].passed / answers[-1].samples - answers[0].passed / answers[0].samples
        change = "better" if gain > 0 else "worse" if gain < 0 else "same"
        rows.append(TaskRow(problem, f"task-{number}", answers, change, opened=False))
    # The tasks worth a look are open from the start: those that changed, or else the first.
    changed = [row.anchor for row in rows if row.change != "same"] or [rows[0].anchor]
    return [dataclasses.replace(row, opened=row.anchor in changed[:OPENED_TASKS]) for row in rows]


def _answer(system: str, verdicts: Sequence[Verdict], completion: Completion) -> Answer:
    passed = sum(verdict.outcome == "passed" for verdict in verdicts)
    return Answer(system, len(verdicts), passed, completion, verdicts[0])


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


def _find(data: Any, name: str) -> Any:
    """Returns the value of key `name` at any depth of nested mappings; None if it is not there."""
    if not isinstance(data, Mapping):
        return None
    if name in data:
        return data[name]
    return next((found for value in data.values() if (found := _find(value, name)) is not None), None)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _shown(text: str) -> str:
    """Returns a program's text as a page can hold it: no lone surrogates, no control characters, not endless."""
    cut = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "\n[cut here]"
    printable = "".join(char if char >= " " or char in "\n\t" else "\ufffd" for char in cut)
    return printable.encode("utf-8", "replace").decode("utf-8")
