"""Scoring gives published scores and the stated verdicts, and resumes after a kill."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.evaluate.answers import read_completions
from jaxwiz.evaluate.score import Key, score
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.problems.extract import extract
from jaxwiz.problems.problem import Benchmark, Problem
from jaxwiz.problems.programs import Judge
from jaxwiz.records import Completion, Verdict
from jaxwiz.sandbox import Limits, Outcome, Program, run_programs
from tests.shared_data import shared_rows

LIMITS = Limits(timeout_s=3.0)
FOUR = load_benchmark(HumanEvalConfig(limit=4))

WriteAnswers = Callable[..., Path]


class Runner:
    """Runs programs on two servers and remembers which."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.ran: list[Key] = []
        self._run = functools.partial(run_programs, limits=limits, workers=2)

    def __call__(self, programs: Iterable[tuple[Key, Program]]) -> Iterator[tuple[Key, Outcome]]:
        listed = list(programs)
        self.ran += [key for key, _ in listed]
        return self._run(listed)


def scored(
    answers: dict[str, list[Completion]],
    journal: Path,
    benchmark: Benchmark = FOUR,
    limits: Limits = LIMITS,
    runner: Runner | None = None,
) -> list[Verdict]:
    return score(answers, benchmark, Judge(), limits, runner or Runner(limits), journal)


def test_an_answer_that_redefines_a_helper_of_the_prompt_says_so_whether_it_passes_or_not(tmp_path: Path) -> None:
    benchmark = load_benchmark(HumanEvalConfig(ids=("HumanEval/32", "HumanEval/33")))
    right = benchmark.problems["HumanEval/32"].canonical_solution
    helper = "def poly(xs, x):\n    return 0.0\n"
    same = "def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n"
    texts = [right, right + same, "    return 0.0\n" + helper, "    return [\n" + helper]
    completions = [
        dataclasses.replace(answer("HumanEval/32", text), sample=number) for number, text in enumerate(texts)
    ]
    completions.append(answer("HumanEval/33", "    return 0\ndef poly(): pass\n"))
    verdicts = scored({"m": completions}, tmp_path / "journal", benchmark)
    assert [(verdict.outcome, verdict.reason) for verdict in verdicts] == [
        ("passed", ""),
        ("passed", "own_helper"),
        ("failed", "own_helper"),  # passes OpenAI's harness
        ("failed", "syntax"),
        ("failed", "exception"),
    ]


@pytest.mark.parametrize("mode", ["wizardcoder", "robust"])
def test_published_generations_score_131_of_164(mode: Any, tmp_path: Path) -> None:
    benchmark = load_benchmark(HumanEvalConfig())
    completions = [
        answer(row["task_id"], extract(row["all_code"], benchmark.problems[row["task_id"]], mode))
        for row in shared_rows("wizardcoder-33b-v1.1-humaneval-vllm.jsonl.gz")
    ]
    verdicts = scored({"33B": completions}, tmp_path / "journal", benchmark)
    assert sum(verdict.outcome == "passed" for verdict in verdicts) == 131


def test_a_killed_run_goes_on_where_it_was(
    write_answers: WriteAnswers, problems: dict[str, Problem], tmp_path: Path
) -> None:
    completions = {"m": read_completions(write_answers("m", right=[0, 2]), problems, problems)}
    journal = tmp_path / "journal"
    whole = scored(completions, journal)
    assert [verdict.outcome for verdict in whole] == ["passed", "failed", "passed", "failed"]

    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1] + lines[2][:20])  # killed while it wrote the third
    runner = Runner()
    assert scored(completions, journal, runner=runner) == whole
    assert len(runner.ran) == 2

    runner = Runner()
    assert scored(completions, journal, runner=runner) == whole
    assert runner.ran == []


def test_a_journal_of_other_programs_or_limits_counts_for_nothing(
    write_answers: WriteAnswers, problems: dict[str, Problem], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    wrong = read_completions(write_answers("a", right=[]), problems, problems)
    right = read_completions(write_answers("b", right=[0, 1, 2, 3]), problems, problems)
    assert {verdict.outcome for verdict in scored({"m": wrong}, journal)} == {"failed"}
    assert {verdict.outcome for verdict in scored({"m": right}, journal)} == {"passed"}
    lines = len(journal.read_bytes().splitlines())
    scored({"m": right}, journal, limits=Limits(timeout_s=2.0))
    assert len(journal.read_bytes().splitlines()) == lines + 4


def test_a_damaged_journal_line_is_run_again(
    write_answers: WriteAnswers, problems: dict[str, Problem], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    completions = {"m": read_completions(write_answers("m", right=[0, 1, 2, 3]), problems, problems)}
    whole = scored(completions, journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b'\xff{"key"\n' + lines[1] + b"[]\n" + lines[3])
    runner = Runner()
    assert scored(completions, journal, runner=runner) == whole
    assert len(runner.ran) == 2


def test_an_empty_completion_fails_even_where_the_tests_accept_it(tmp_path: Path) -> None:
    lenient = Problem("T/0", 'def f():\n    """Does nothing."""\n', "def check(f):\n    f()\n", "f", "")
    benchmark = Benchmark("humaneval", "", "", "", "", {"T/0": lenient}, {"T/0": lenient})
    (verdict,) = scored({"m": [answer("T/0", " \n")]}, tmp_path / "j", benchmark)
    assert (verdict.outcome, verdict.detail, verdict.reason) == ("failed", "empty completion", "empty")


def test_a_failure_names_input_expected_and_actual_value(tmp_path: Path) -> None:
    codes = ["    return 7\n", "    return [][1]\n", "    while True: pass\n", "    return (\n"]
    completions = [answer(f"HumanEval/{number}", code) for number, code in enumerate(codes)]
    wrong, raising, endless, broken = scored({"m": completions}, tmp_path / "j", limits=Limits(timeout_s=1.0))
    assert (wrong.reason, wrong.input) == ("assertion", "[1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3")
    assert (wrong.expected, wrong.actual) == ("True", "7")
    assert wrong.detail == "AssertionError: assert candidate([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True"
    assert (raising.reason, raising.actual) == ("exception", "raised IndexError: list index out of range")
    assert raising.input == "'(()()) ((())) () ((())()())'"
    assert (endless.outcome, endless.reason) == ("timed_out", "timeout")
    assert (broken.outcome, broken.reason, broken.input) == ("failed", "syntax", "")


def test_a_whole_program_is_not_put_behind_the_prompt(problems: dict[str, Problem], tmp_path: Path) -> None:
    problem = problems["HumanEval/0"]
    without_import = problem.solution(problem.canonical_solution).replace("from typing import List", "")
    (path := tmp_path / "s.jsonl").write_text(
        json.dumps({"task_id": "HumanEval/0", "solution": problem.solution(problem.canonical_solution)})
        + "\n"
        + json.dumps({"task_id": "HumanEval/0", "solution": without_import})
        + "\n"
        + json.dumps({"task_id": "HumanEval/0", "completion": without_import})
    )
    one = {"HumanEval/0": problem}
    verdicts = scored({"m": read_completions(path, one, one)}, tmp_path / "j")
    assert [verdict.outcome for verdict in verdicts] == ["passed", "failed", "passed"]
    assert "NameError" in verdicts[1].detail


def answer(task_id: str, completion: str) -> Completion:
    return Completion(
        task_id=task_id, sample=0, prompt="", raw="", completion=completion, finish_reason="stop", new_tokens=0
    )
