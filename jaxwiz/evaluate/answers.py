"""Reads the completions to score: ours, or those that EvalPlus and OpenAI's human-eval read and write.

    line                                 from
    {"schema": "jaxwiz.completion.v1"..} the sample stage
    {"task_id", "solution"}              EvalPlus: a whole program
    {"task_id", "completion"}            OpenAI's human-eval: what follows the prompt

The last two may have further keys, which are ignored; samples of a task are numbered as they come.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxwiz.problems.problem import Problem
from jaxwiz.records import Completion, RecordError, parse_record

MOST_LISTED = 3


def read_completions(path: Path, problems: Mapping[str, Problem], known: Mapping[str, Problem]) -> list[Completion]:
    """Returns the completions of a file for `problems`, in the order of these and then of samples.

    Args:
      path: JSONL; see above for its lines.
      problems: the tasks to score; each must be answered.
      known: all tasks of the benchmark; answers to those outside `problems` are left out.

    Raises:
      RecordError: unreadable lines, unknown tasks, the same sample twice, or tasks without an answer.
    """
    found: dict[tuple[str, int], Completion] = {}
    repeated: list[tuple[str, int]] = []
    for completion in _completions(path):
        key = (completion.task_id, completion.sample)
        if key in found:
            repeated.append(key)
        found[key] = completion
    _require_fit(path, found, repeated, problems, known)
    order = {task_id: position for position, task_id in enumerate(problems)}
    kept = [completion for completion in found.values() if completion.task_id in order]
    return sorted(kept, key=lambda completion: (order[completion.task_id], completion.sample))


def _require_fit(
    path: Path,
    found: Mapping[tuple[str, int], Completion],
    repeated: list[tuple[str, int]],
    problems: Mapping[str, Problem],
    known: Mapping[str, Problem],
) -> None:
    answered = {task_id for task_id, _ in found}
    unknown = sorted(answered - known.keys())
    missing = [task_id for task_id in problems if task_id not in answered]
    faults = []
    if unknown:
        first, *_, last = [*known, *known]
        faults.append(f"{_listed(unknown)}: not in the benchmark ({first} to {last}); is this the right file?")
    if repeated:
        names = [f"{task_id} sample {sample}" for task_id, sample in repeated]
        faults.append(f"{_listed(names)}: there twice; number a task's samples 0, 1, ...")
    if missing:
        faults.append(
            f"no completion for {len(missing)} of {len(problems)} tasks ({_listed(missing)}); "
            "finish sampling, or select fewer tasks with benchmark.limit or benchmark.ids"
        )
    if faults:
        raise RecordError(f"{path}: " + "\n  ".join(faults))


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _completions(path: Path) -> Iterator[Completion]:
    samples: Counter[str] = Counter()
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    completion = _parse(line, f"{path}:{number}", samples)
                    samples[completion.task_id] += 1
                    yield completion
    except OSError as error:
        raise RecordError(f"{path}: cannot read completions ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None


def _parse(line: str, where: str, samples: Mapping[str, int]) -> Completion:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON ({error}); each line must be one object") from None
    if isinstance(row, dict) and "schema" not in row and "sample" not in row:
        return _from_others(row, where, samples)
    return parse_record(line, Completion, where)


def _from_others(row: dict[str, Any], where: str, samples: Mapping[str, int]) -> Completion:
    whole = "solution" in row
    names = ("task_id", "solution" if whole else "completion")
    for name in names:
        if not isinstance(row.get(name), str):
            shown = repr(row[name])[:60] if name in row else "missing"
            raise RecordError(f"{where}: field {name!r} is {shown}; a line needs task_id and solution or completion")
    task_id, text = (row[name] for name in names)
    return Completion(
        task_id=task_id,
        sample=samples[task_id],
        prompt="",
        raw="",
        completion=text,
        finish_reason="",
        new_tokens=0,
        whole_program=whole,
    )
