"""What a benchmark is made of: its tasks, and what must be known of its data to compare scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxwiz.files import UserError

Kind = Literal["humaneval", "humaneval_plus", "mbpp", "mbpp_plus"]


class BenchmarkError(UserError):
    """Benchmark data that cannot be used, or task ids that it does not have."""


@dataclasses.dataclass(frozen=True, eq=False)
class PlusTests:
    """What EvalPlus tests a function with: lists of arguments, decoded; the canonical solution says what is right.

    Attributes:
      base: those of the original benchmark, one list or tuple of arguments per call.
      plus: EvalPlus' own.
      atol: absolute tolerance of results; 0: exact, but for floats (see oracle.py).
    """

    base: Sequence[Sequence[Any]]
    plus: Sequence[Sequence[Any]]
    atol: float


@dataclasses.dataclass(frozen=True)
class Problem:
    """One benchmark task.

    Attributes:
      task_id: for instance "HumanEval/0" or "Mbpp/11".
      prompt: what a base model goes on from, ending in a line break. HumanEval: imports, signature and docstring of the
        function; MBPP: the task's text and an assertion, or all three, as a string.
      test: source of the tests. HumanEval: defines `check(candidate)`; MBPP: assertions, the setup code before them.
      entry_point: name of the tested function.
      canonical_solution: the benchmark's own completion of `prompt`.
      kind: the benchmark.
      description: MBPP: the task's text alone; HumanEval: empty.
      examples: MBPP: the assertions that a model is shown; HumanEval: none.
      plus: EvalPlus' tests, where the benchmark has them.
    """

    task_id: str
    prompt: str
    test: str
    entry_point: str
    canonical_solution: str
    kind: Kind = "humaneval"
    description: str = ""
    examples: tuple[str, ...] = ()
    plus: PlusTests | None = None

    def solution(self, completion: str) -> str:
        """Returns the program that a completion makes: put behind the prompt, which it may repeat."""
        return self.prompt + completion


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark's tasks and what identifies them.

    Attributes:
      name: its kind.
      version: of the data, for instance "v0.1.10"; "unknown" for a file that is no known release.
      sha256: of the task file's text, decompressed.
      oracle_version: whose rules decide verdicts.
      file: name of the task file.
      problems: the tasks that a config selects, by task id, in the file's order.
      known: all tasks of the file.
    """

    name: Kind
    version: str
    sha256: str
    oracle_version: str
    file: str
    problems: Mapping[str, Problem]
    known: Mapping[str, Problem]


def select(problems: Mapping[str, Problem], ids: Sequence[str] = (), limit: int | None = None) -> dict[str, Problem]:
    """Returns the problems with these ids (empty: all), then the first `limit` of those, in the benchmark's order.

    Raises:
      BenchmarkError: ids that the benchmark does not have.
    """
    unknown = [task_id for task_id in ids if task_id not in problems]
    if unknown:
        first, last = next(iter(problems)), list(problems)[-1]
        raise BenchmarkError(
            f"benchmark.ids: {', '.join(map(repr, unknown))}: no such task; the benchmark has {first} to {last}"
        )
    wanted = set(ids) or problems.keys()
    chosen = [task_id for task_id in problems if task_id in wanted][:limit]
    return {task_id: problems[task_id] for task_id in chosen}
