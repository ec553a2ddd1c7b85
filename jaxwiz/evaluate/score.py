"""Gives each completion its verdict, and never the same one twice.

Verdicts go to a journal as they come. A run that was killed reads it and runs only the rest; a line cut off by the kill
is dropped. Each line names the program and limits that it judged, so it is never taken for another completion's.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz import files
from jaxwiz.console import progress
from jaxwiz.problems.humaneval import Problem, check_program
from jaxwiz.records import Completion, RecordError, Verdict, read_records
from jaxwiz.sandbox import Limits, Outcome, run_programs

JOURNAL = "verdicts.journal"

Key = tuple[str, str, int]  # system, task id, sample


def read_completions(path: Path, problems: Mapping[str, Problem], known: Mapping[str, Problem]) -> list[Completion]:
    """Returns the completions of a file for `problems`, in the order of these and then of samples.

    Args:
      path: JSONL of Completion records.
      problems: the tasks to score; each must be answered.
      known: all tasks of the benchmark; answers to those outside `problems` are left out.

    Raises:
      RecordError: unreadable lines, unknown tasks, the same sample twice, or tasks without an answer.
    """
    found: dict[tuple[str, int], Completion] = {}
    for completion in read_records(path, Completion):
        key = (completion.task_id, completion.sample)
        if completion.task_id not in known:
            raise RecordError(
                f"{path}: task_id {completion.task_id!r} is not in the benchmark ({_ends(known)}); the right file?"
            )
        if key in found:
            raise RecordError(
                f"{path}: task {completion.task_id!r} has sample {completion.sample} twice; number them 0, 1, ..."
            )
        found[key] = completion
    answered = {task_id for task_id, _ in found}
    missing = [task_id for task_id in problems if task_id not in answered]
    if missing:
        raise RecordError(
            f"{path}: no completion for {len(missing)} of {len(problems)} tasks, the first being {missing[0]!r}; "
            "finish sampling, or select fewer tasks with benchmark.limit or benchmark.ids"
        )
    order = {task_id: position for position, task_id in enumerate(problems)}
    kept = [completion for completion in found.values() if completion.task_id in order]
    return sorted(kept, key=lambda completion: (order[completion.task_id], completion.sample))


def score(
    completions: Mapping[str, Sequence[Completion]],
    problems: Mapping[str, Problem],
    limits: Limits,
    workers: int | None,
    journal: Path,
) -> list[Verdict]:
    """Returns a verdict for each completion, in their order; those that the journal holds are not run again.

    Args:
      completions: by system label.
      problems: their tasks.
      limits: what each program may use.
      workers: programs at a time; None: as many as there are cores.
      journal: the file to resume from and to add to.
    """
    wanted: dict[Key, Completion] = {
        (system, completion.task_id, completion.sample): completion
        for system, answers in completions.items()
        for completion in answers
    }
    digests = {key: _digest(completion, problems[key[1]], limits) for key, completion in wanted.items()}
    outcomes = {key: outcome for key, (digest, outcome) in _read_journal(journal).items() if digests.get(key) == digest}
    empty = {key for key, completion in wanted.items() if not completion.completion.strip()}
    outcomes.update({key: Outcome("failed", "empty completion") for key in empty})  # some tests accept a bare docstring
    pending = [key for key in wanted if key not in outcomes]
    programs = ((key, check_program(problems[key[1]], wanted[key].completion)) for key in pending)
    with (
        progress("evaluate", len(wanted), "programs", start=len(wanted) - len(pending)) as advance,
        open(journal, "a", encoding="utf-8", newline="\n") as file,
        contextlib.closing(run_programs(programs, limits, workers)) as results,
    ):
        for key, outcome in results:
            outcomes[key] = outcome
            entry = {"key": key, "program": digests[key], "status": outcome.status, "detail": outcome.detail}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            advance()
    return [
        Verdict(system=key[0], task_id=key[1], sample=key[2], outcome=outcomes[key].status, detail=outcomes[key].detail)
        for key in wanted
    ]


def _digest(completion: Completion, problem: Problem, limits: Limits) -> str:
    program = check_program(problem, completion.completion)
    return files.sha256_of_bytes(f"{limits}\0{program}".encode("utf-8", "surrogatepass"))


def _read_journal(journal: Path) -> dict[Key, tuple[str, Outcome]]:
    """Returns {key: (digest, outcome)} of the whole lines of a journal, and cuts off a torn last line."""
    if not journal.exists():
        return {}
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(journal, "r+b") as file:
            file.truncate(len(whole))
    return dict(_journal_entries(whole))


def _journal_entries(data: bytes) -> Iterator[tuple[Key, tuple[str, Outcome]]]:
    for line in data.splitlines():
        entry: dict[str, Any] = json.loads(line)
        system, task_id, sample = entry["key"]
        yield (system, task_id, sample), (entry["program"], Outcome(entry["status"], entry["detail"]))


def _ends(problems: Mapping[str, Problem]) -> str:
    ids = list(problems)
    return f"{ids[0]} to {ids[-1]}"
