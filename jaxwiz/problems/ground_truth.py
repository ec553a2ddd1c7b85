"""What the canonical solutions return for EvalPlus' inputs, and how long they take on this machine.

Computed once in the sandbox and kept under the cache, in one file for each data file and Python version. Results are
marshalled and never read in this process: only checkers, in the sandbox, read them.
"""

import base64
import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.console import progress
from jaxwiz.problems import fingerprint, measure, oracle
from jaxwiz.problems.problem import Benchmark, BenchmarkError, Problem
from jaxwiz.problems.shipping import MEASURER, checker_data, source_of
from jaxwiz.sandbox import Limits, Program, run_programs

SCHEMA = "jaxwiz.ground_truth.v1"
TIMEOUT_S = 300.0  # for one task's inputs; the slowest takes 20 s
SPECIAL_TASKS = {"find_zero", "are_equivalent", "sum_div", "surface_Area", "digit_distance_nums"}

Key = tuple[str, str]  # task id, and "base" or "plus"


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is right for one task's base or plus inputs.

    Attributes:
      times_s: CPU seconds that the canonical solution took, per call.
      extra_s: CPU seconds that fingerprinting its result took, per call; 0 where the result is kept itself.
      expected: marshalled list of expected results, per call, in the form that oracle.py reads.
    """

    times_s: tuple[float, ...]
    extra_s: tuple[float, ...]
    expected: bytes


def ground_truth(benchmark: Benchmark, cache: str, workers: int | None = None) -> Mapping[Key, Truth]:
    """Returns what is right for the selected tasks, from the cache as far as it is there.

    Args:
      benchmark: one with EvalPlus' tests.
      cache: folder that keeps the results; "~" is the home folder.
      workers: programs at a time; None: as many as there are cores.

    Raises:
      BenchmarkError: a canonical solution fails on its own inputs, or the cache cannot be written.
    """
    name = f"{benchmark.name}-{benchmark.sha256[:16]}-python{platform.python_version()}.json"
    file = Path(cache).expanduser() / "ground-truth" / name
    known = _read(file)
    missing = [problem for task_id, problem in benchmark.problems.items() if (task_id, "plus") not in known]
    if missing:
        known.update(_compute(missing, workers))
        try:
            files.write_text(file, _to_json(known))
        except OSError as error:
            raise BenchmarkError(
                f"benchmark.cache = {cache!r}: cannot write there ({error}); name another folder"
            ) from None
    return known


def _compute(problems: Sequence[Problem], workers: int | None) -> dict[Key, Truth]:
    found: dict[Key, Truth] = {}
    programs = (((problem.task_id, part), _program(problem, part)) for problem in problems for part in ("base", "plus"))
    with progress("canonical solutions", 2 * len(problems), "runs") as advance:
        for key, outcome in run_programs(programs, Limits(timeout_s=TIMEOUT_S), workers):
            if outcome.status != "passed":
                raise BenchmarkError(
                    f"{key[0]}: the canonical solution fails on its own {key[1]} inputs "
                    f"({outcome.detail or outcome.status}); is the task file damaged, or this machine out of memory?"
                )
            times, _, expected = outcome.output.partition(b"\n")
            times_s, extra_s = json.loads(times)
            found[key] = Truth(tuple(times_s), tuple(extra_s), expected)
            advance()
    return found


def _program(problem: Problem, part: str) -> Program:
    assert problem.plus is not None
    payload = {
        "source": problem.solution(problem.canonical_solution),
        "name": problem.entry_point,
        "arguments": [list(arguments) for arguments in getattr(problem.plus, part)],
        "not_none": problem.kind == "mbpp_plus" and problem.entry_point in oracle.NOT_NONE_TASKS,
        "exact": problem.plus.atol == 0 and problem.entry_point not in {*SPECIAL_TASKS, *oracle.SET_TASKS},
        "fingerprint": source_of(fingerprint),
    }
    return Program(candidate="", checker=MEASURER, data=checker_data(measure, payload))


def _to_json(known: Mapping[Key, Truth]) -> str:
    tasks: dict[str, dict[str, object]] = {}
    for (task_id, part), truth in known.items():
        tasks.setdefault(task_id, {})[part] = [
            truth.times_s,
            truth.extra_s,
            base64.b64encode(truth.expected).decode("ascii"),
        ]
    return json.dumps({"schema": SCHEMA, "tasks": tasks})


def _read(file: Path) -> dict[Key, Truth]:
    """Returns what a cache file holds; nothing if it is missing, damaged or of another schema."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            return {}
        return {
            (task_id, part): Truth(tuple(times_s), tuple(extra_s), base64.b64decode(expected, validate=True))
            for task_id, parts in data["tasks"].items()
            for part, (times_s, extra_s, expected) in parts.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
