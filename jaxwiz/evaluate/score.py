"""Gives each completion its verdict, and never the same one twice.

Verdicts go to a journal as they come. A run that was killed reads it and runs only the rest; a line cut off by the kill
is dropped. Each line names what it judged, under which nominal limits, so it is never taken for another completion's.

Where a benchmark has plus inputs, an answer that passes the base tests is run again on those, as a program of its own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz import files
from jaxwiz.console import progress
from jaxwiz.problems.problem import Benchmark, Problem
from jaxwiz.problems.programs import Judge, Part, redefines_helper
from jaxwiz.records import Completion, Verdict
from jaxwiz.sandbox import Limits, Outcome, Program

JOURNAL = "verdicts.journal"

Key = tuple[str, str, int]  # system, task id, sample
Runner = Callable[[Iterable[tuple[Key, Program]]], Iterator[tuple[Key, Outcome]]]

# The reason of a verdict, passed or failed, on an answer that defines a helper of the prompt anew: OpenAI's tests then
# use that one, here they use the prompt's own, so the verdicts may differ.
OWN_HELPER = "own_helper"
EMPTY = Outcome("failed", "empty completion", "empty")  # OpenAI's tests pass some prompts as they stand


def score(
    completions: Mapping[str, Sequence[Completion]],
    benchmark: Benchmark,
    judge: Judge,
    limits: Limits,
    run: Runner,
    journal: Path,
) -> list[Verdict]:
    """Returns a verdict for each completion, in their order; those that the journal holds are not run again.

    Args:
      completions: by system label.
      benchmark: their tasks.
      judge: makes the programs that judge them.
      limits: what each program may use, as the config says.
      run: runs programs under these limits and yields what became of each, in any order.
      journal: the file to resume from and to add to.
    """
    wanted: dict[Key, Completion] = {
        (system, completion.task_id, completion.sample): completion
        for system, answers in completions.items()
        for completion in answers
    }
    has_plus = any(problem.plus is not None for problem in benchmark.problems.values())
    parts: tuple[Part, ...] = ("base", "plus") if has_plus else ("base",)
    settings = f"{limits}\0{benchmark.sha256}\0{benchmark.oracle_version}\0{judge.settings()}"
    known = _read_journal(journal)
    outcomes: dict[Part, dict[Key, Outcome]] = {}
    keys = list(wanted)
    with progress("evaluate", len(wanted) * len(parts), "programs") as advance:
        for part in parts:
            digests = {key: _digest(settings, part, wanted[key], benchmark.problems[key[1]]) for key in keys}
            found = {key: known[digests[key]] for key in keys if digests[key] in known}
            found.update({key: EMPTY for key in keys if not wanted[key].completion.strip()})
            pending = [key for key in keys if key not in found]
            advance(len(wanted) - len(pending))
            programs = ((key, _program(judge, benchmark.problems[key[1]], wanted[key], part)) for key in pending)
            with open(journal, "a", encoding="utf-8", newline="\n") as file:
                for key, outcome in run(programs) if pending else ():
                    found[key] = outcome
                    file.write(_to_json(digests[key], outcome) + "\n")
                    file.flush()
                    advance()
            outcomes[part] = found
            keys = [key for key in keys if found[key].status == "passed"]
    own_helper = {key for key in wanted if _has_own_helper(benchmark.problems[key[1]], wanted[key])}
    return [_verdict(key, outcomes, key in own_helper) for key in wanted]


def _program(judge: Judge, problem: Problem, completion: Completion, part: Part) -> Program:
    return judge.program(problem, _solution(problem, completion), part)


def _solution(problem: Problem, completion: Completion) -> str:
    return completion.completion if completion.whole_program else problem.solution(completion.completion)


def _has_own_helper(problem: Problem, completion: Completion) -> bool:
    return redefines_helper(problem, _solution(problem, completion))


def _verdict(key: Key, outcomes: Mapping[Part, Mapping[Key, Outcome]], own_helper: bool) -> Verdict:
    base = outcomes["base"][key]
    last = outcomes["plus"].get(key, base) if "plus" in outcomes else base
    failure = last.failure or {}
    system, task_id, sample = key
    return Verdict(
        system=system,
        task_id=task_id,
        sample=sample,
        outcome=last.status,
        detail=last.detail,
        base_outcome=base.status if "plus" in outcomes else "",
        reason=OWN_HELPER if own_helper and last.reason in ("", "assertion", "exception") else last.reason,
        input=failure.get("input", ""),
        expected=failure.get("expected", ""),
        actual=failure.get("actual", ""),
        forgeable=last.forgeable,
    )


def _digest(settings: str, part: Part, completion: Completion, problem: Problem) -> str:
    text = f"{settings}\0{part}\0{problem.task_id}\0{_solution(problem, completion)}"
    return files.sha256_of_bytes(text.encode("utf-8", "surrogatepass"))


def _to_json(digest: str, outcome: Outcome) -> str:
    return json.dumps(
        {
            "program": digest,
            "status": outcome.status,
            "detail": outcome.detail,
            "reason": outcome.reason,
            "forgeable": outcome.forgeable,
            "failure": None if outcome.failure is None else dict(outcome.failure),
        }
    )


def _read_journal(journal: Path) -> dict[str, Outcome]:
    """Returns {digest: outcome} of the whole lines of a journal, and cuts off a torn last line."""
    if not journal.exists():
        return {}
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(journal, "r+b") as file:
            file.truncate(len(whole))
    return dict(_journal_entries(whole))


def _journal_entries(data: bytes) -> Iterator[tuple[str, Outcome]]:
    for line in data.splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
            yield (
                entry["program"],
                Outcome(entry["status"], entry["detail"], entry["reason"], entry["forgeable"], entry["failure"]),
            )
        except (ValueError, KeyError, TypeError):
            continue  # of an earlier version, or damaged: it is run again
