"""Completions to score, of which it is known how many are right."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from jaxwiz.problems.humaneval import Problem, load_humaneval, select
from jaxwiz.records import Completion, write_records

WriteAnswers = Callable[..., Path]


@pytest.fixture(scope="session")
def problems() -> dict[str, Problem]:
    """The first four tasks of HumanEval."""
    return select(load_humaneval(), limit=4)


@pytest.fixture
def write_answers(tmp_path: Path, problems: dict[str, Problem]) -> WriteAnswers:
    """A function (name, right, wrong="...", samples=1) -> path of a completions file.

    Samples of the tasks numbered in `right` are canonical, the others are `wrong`.
    """

    def write(name: str, right: Sequence[int], wrong: str = "    return None\n", samples: int = 1) -> Path:
        path = tmp_path / f"{name}.jsonl"
        records = []
        for number, problem in enumerate(problems.values()):
            code = problem.canonical_solution if number in right else wrong
            records += [
                Completion(
                    task_id=problem.task_id,
                    sample=sample,
                    prompt=problem.prompt,
                    raw=code,
                    completion=code,
                    finish_reason="stop",
                    new_tokens=7,
                )
                for sample in range(samples)
            ]
        write_records(path, records)
        return path

    return write
