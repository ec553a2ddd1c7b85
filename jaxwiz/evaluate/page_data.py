"""Chooses what the report's page shows of each sample, within a limit on its size that it never passes in silence.

Every sample's outcome is on the page. Texts (prompt, raw text, code, failing input) are there for as many samples as
`most_bytes` allows, taken a task at a time and round after round, so that all tasks show about equally many: first the
task's first sample, then one of each other outcome, then the rest in order. Equal texts are stored once. For a sample
whose texts are left out the page says where they are.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxwiz.problems.problem import Problem
from jaxwiz.records import Completion, Verdict

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f]")
MOST_CHARACTERS = 20_000  # of one text
BYTES_TO_REFER = 48  # from a sample to its texts
_LETTERS = {"passed": "p", "failed": "f", "timed_out": "t", "": ""}


@dataclasses.dataclass(frozen=True)
class PageSystem:
    """One system as the page shows it.

    Attributes:
      label: its name on the page.
      verdicts: of all its samples.
      completions: what it wrote; empty if that can't be had any more.
      source: the file that holds all of them, for people.
    """

    label: str
    verdicts: Sequence[Verdict]
    completions: Sequence[Completion]
    source: str


@dataclasses.dataclass
class TaskData:
    """What the page's script knows of one task.

    Attributes:
      texts: distinct texts with their positions, by which samples refer to them; the prompt and the canonical solution
        come first.
      systems: by position, {"outcomes", "base", "numbers", "shown"}: a letter for each sample's outcome, the same for
        the base tests ("" without), the samples' numbers, and the details of those that are shown, by position.
    """

    texts: dict[str, int]
    systems: list[dict[str, Any]]

    def place_of(self, text: str) -> int:
        """Returns the position of `text`, which is added if it is new."""
        return self.texts.setdefault(text, len(self.texts))


@dataclasses.dataclass(frozen=True)
class PageData:
    """All tasks by id, and how many samples have their texts on the page."""

    tasks: dict[str, TaskData]
    shown: int
    samples: int


def choose_page_data(problems: Mapping[str, Problem], systems: Sequence[PageSystem], most_bytes: int) -> PageData:
    """Returns what the page shows.

    Args:
      problems: the tasks, by id.
      systems: in the order of the page.
      most_bytes: most bytes that the samples' texts may take, as JSON; outcomes, prompts and solutions come on top.
    """
    answers = [_by_task(system) for system in systems]
    tasks = {}
    for task_id, problem in problems.items():
        tasks[task_id] = TaskData({}, [_outcomes(samples[task_id]) for samples in answers])
        tasks[task_id].place_of(page_text(problem.prompt))
        tasks[task_id].place_of(page_text(problem.canonical_solution))
    shown, left = 0, most_bytes
    for task_id, place, position in _rounds(tasks, answers):
        task = tasks[task_id]
        details, texts = _details(*answers[place][task_id][position])
        size = len(json.dumps(details, ensure_ascii=False).encode()) + BYTES_TO_REFER
        size += sum(
            len(json.dumps(text, ensure_ascii=False).encode()) for text in {*texts.values()} - task.texts.keys()
        )
        if size > left:
            continue
        left -= size
        details |= {name: task.place_of(text) for name, text in texts.items()}
        task.systems[place]["shown"][str(position)] = details
        shown += 1
    return PageData(tasks, shown, sum(len(system.verdicts) for system in systems))


def page_text(text: str) -> str:
    """Returns a program's text as a page can hold it: no lone surrogates, no control characters, not endless."""
    left_out = len(text) - MOST_CHARACTERS
    cut = text if left_out <= 0 else f"{text[:MOST_CHARACTERS]}\n[cut here: {left_out:,} more characters]"
    printable = _UNPRINTABLE.sub("\ufffd", cut)
    return printable.encode("utf-8", "replace").decode("utf-8")


Samples = dict[str, list[tuple[Verdict, Completion | None]]]  # of one system, by task id


def _by_task(system: PageSystem) -> Samples:
    written = {(completion.task_id, completion.sample): completion for completion in system.completions}
    samples: Samples = {}
    for verdict in system.verdicts:
        pair = (verdict, written.get((verdict.task_id, verdict.sample)))
        samples.setdefault(verdict.task_id, []).append(pair)
    return samples


def _outcomes(samples: Sequence[tuple[Verdict, Completion | None]]) -> dict[str, Any]:
    return {
        "outcomes": "".join(_LETTERS[verdict.outcome] for verdict, _ in samples),
        "base": "".join(_LETTERS[verdict.base_outcome] for verdict, _ in samples),
        "numbers": [verdict.sample for verdict, _ in samples],
        "shown": {},
    }


def _rounds(tasks: Mapping[str, TaskData], answers: Sequence[Samples]) -> Iterator[tuple[str, int, int]]:
    """Yields (task id, position of the system, position of the sample), the most telling samples of all tasks first."""
    queues = [
        [(task_id, place, position) for position in _by_interest(samples[task_id])]
        for task_id in tasks
        for place, samples in enumerate(answers)
    ]
    for one_of_each in itertools.zip_longest(*queues):
        yield from (entry for entry in one_of_each if entry is not None)


def _by_interest(samples: Sequence[tuple[Verdict, Completion | None]]) -> list[int]:
    first_of: dict[str, int] = {}
    for position, (verdict, _) in enumerate(samples):
        first_of.setdefault(verdict.outcome, position)
    return list(dict.fromkeys([0, *first_of.values(), *range(len(samples))]))


def _details(verdict: Verdict, completion: Completion | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what is particular to a sample, and its texts, which others may share."""
    details: dict[str, Any] = {
        name: page_text(text)
        for name in ("reason", "detail", "input", "expected", "actual")
        if (text := getattr(verdict, name))
    }
    if verdict.forgeable:
        details["forgeable"] = True
    if completion is None:
        return details, {}
    details |= {"ended": page_text(completion.finish_reason), "tokens": completion.new_tokens}
    texts = {"code": completion.completion, "raw": completion.raw, "prompt": completion.prompt}
    return details, {name: page_text(text) for name, text in texts.items()}
