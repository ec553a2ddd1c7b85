"""Completions to score, of which it is known how many are right; evaluations of given verdicts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.config import parse_config
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.run import write_results
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import Problem, select
from jaxwiz.records import Completion, Verdict, write_records
from jaxwiz.sandbox import Level

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


Finish = Callable[..., Path]


@pytest.fixture
def finish(tmp_path: Path) -> Finish:
    """A function (name, systems, **config) -> folder that writes a whole evaluation whose verdicts are given.

    `systems` maps a label to {task id: outcomes}, a letter each: p passed, f failed, t timed out, b passed the base
    tests only. `texts` maps "code", "raw", "prompt", "detail", "input", "expected", "actual" to what all samples have.
    """

    def write(name: str, systems: dict[str, dict[str, str]], texts: dict[str, str] | None = None, **more: Any) -> Path:
        texts = texts or {}
        tasks = list(next(iter(systems.values())))
        words = {"p": "passed", "f": "failed", "t": "timed_out", "b": "failed"}
        completions: dict[str, list[Completion]] = {}
        verdicts = []
        with_base = "b" in "".join(letters for tasks_of in systems.values() for letters in tasks_of.values())
        for label, outcomes in systems.items():
            completions[label] = []
            for task_id, letters in outcomes.items():
                for sample, letter in enumerate(letters):
                    code = texts.get("code", f"    return {label!r}, {sample}\n")
                    completions[label].append(
                        Completion(
                            task_id=task_id,
                            sample=sample,
                            prompt=texts.get("prompt", f"Solve {task_id}."),
                            raw=texts.get("raw", f"Here you are:\n{code}"),
                            completion=code,
                            finish_reason="stop",
                            new_tokens=7,
                        )
                    )
                    fault = {key: texts.get(key, key) for key in ("detail", "input", "expected", "actual")}
                    verdicts.append(
                        Verdict(
                            system=label,
                            task_id=task_id,
                            sample=sample,
                            outcome=words[letter],
                            base_outcome=("passed" if letter in "pb" else words[letter]) if with_base else "",
                            reason="" if letter == "p" else "timeout" if letter == "t" else "assertion",
                            **(fault if letter != "p" else {"detail": ""}),
                        )
                    )
            write_records(tmp_path / f"{name}-{label}.jsonl", completions[label])
        config = parse_config(
            {
                "out": str(tmp_path / name),
                "benchmark": {"kind": "humaneval", "ids": [] if len(tasks) == 164 else tasks},
                "systems": {label: {"completions": str(tmp_path / f"{name}-{label}.jsonl")} for label in systems},
                **more,
            },
            EvaluateConfig,
            "test",
        )
        level = Level("L0", ("namespaces", "landlock"))
        write_results(config, load_benchmark(config.benchmark), completions, verdicts, level, 1.0, None)
        return config.out

    return write
