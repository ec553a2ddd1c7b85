"""Programs made of answers give the right verdicts in the sandbox, and the ground truth is computed once."""

import json
from pathlib import Path

import pytest

from jaxwiz.problems import ground_truth as ground_truth_module
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import HumanEvalConfig, HumanEvalPlusConfig, MbppConfig, MbppPlusConfig
from jaxwiz.problems.ground_truth import ground_truth
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import Benchmark, BenchmarkError, PlusTests, Problem
from jaxwiz.problems.programs import Judge, Part, prepare_judge, redefines_helper
from jaxwiz.sandbox import Limits, Outcome, Program, run_programs
from tests.shared_data import shared_file


def outcomes(programs: dict[str, Program], limits: Limits = Limits(timeout_s=10.0)) -> dict[str, Outcome]:  # noqa: B008
    return dict(run_programs(iter(programs.items()), limits, 2))


def failures(programs: dict[str, Program]) -> dict[str, Outcome]:
    return {key: outcome for key, outcome in outcomes(programs).items() if outcome.status != "passed"}


def test_all_canonical_solutions_of_humaneval_pass() -> None:
    judge = Judge()
    programs = {
        task_id: judge.program(problem, problem.solution(problem.canonical_solution))
        for task_id, problem in load_humaneval().items()
    }
    assert all(program.checker for program in programs.values())
    assert failures(programs) == {}


def test_reference_code_of_mbpp_passes() -> None:
    benchmark = load_benchmark(MbppConfig(path=shared_file("mbpp-test.jsonl.gz"), challenge_tests=True))
    judge = Judge()
    programs = {
        task_id: judge.program(problem, problem.solution(problem.canonical_solution))
        for number, (task_id, problem) in enumerate(benchmark.problems.items())
        if number % 4 == 0 or task_id in ("Mbpp/126", "Mbpp/367")  # all 500: tests/parity
    }
    assert [task_id for task_id, program in programs.items() if not program.checker] == ["Mbpp/367"]  # it makes Nodes
    assert failures(programs) == {}


TASKS = ["HumanEval/4", "HumanEval/32", "HumanEval/115", "Mbpp/2", "Mbpp/252", "Mbpp/737", "Mbpp/793"]


@pytest.mark.parametrize("family", ["HumanEval", "Mbpp"])
def test_canonical_solutions_pass_base_and_plus_inputs(family: str, tmp_path: Path) -> None:
    ids = tuple(task_id for task_id in TASKS if task_id.startswith(family))
    config: HumanEvalPlusConfig | MbppPlusConfig
    if family == "HumanEval":
        path = shared_file("HumanEvalPlus-v0.1.10.jsonl.gz")
        config = HumanEvalPlusConfig(path=path, ids=ids, cache=str(tmp_path))
    else:
        config = MbppPlusConfig(path=shared_file("MbppPlus-v0.2.0.jsonl.gz"), ids=ids, cache=str(tmp_path))
    benchmark = load_benchmark(config)
    judge = prepare_judge(config, benchmark)
    parts: tuple[Part, ...] = ("base", "plus")
    programs = {
        f"{task_id} {part}": judge.program(problem, problem.solution(problem.canonical_solution), part)
        for task_id, problem in benchmark.problems.items()
        for part in parts
    }
    assert len(programs) == 2 * len(ids)
    assert failures(programs) == {}


POLY = load_humaneval()["HumanEval/32"]
CLOSE = load_humaneval()["HumanEval/0"]
WRONG = "    return 'wrong'\n"
EQUALS_ALL = """    class Any:
        def __eq__(self, other): return True
    return Any()
"""


@pytest.mark.parametrize(
    ("problem", "completion", "reason"),
    [
        (CLOSE, WRONG, "assertion"),
        (CLOSE, EQUALS_ALL, "not_plain_data"),  # passes OpenAI's harness
        (POLY, "    return 0.0\ndef poly(xs, x):\n    return 0.0\n", "assertion"),  # so does this
        (CLOSE, CLOSE.canonical_solution + "\nimport sys\nsys.exit()\n", "exit"),
        (CLOSE, CLOSE.canonical_solution + "\nx = (", "syntax"),
        (CLOSE, CLOSE.canonical_solution + "\nx = \\", "syntax"),
        (CLOSE, CLOSE.canonical_solution + "\ndel has_close_elements", "exception"),
    ],
)
def test_wrong_answers_fail(problem: Problem, completion: str, reason: str) -> None:
    outcome = outcomes({"a": Judge().program(problem, problem.solution(completion))})["a"]
    assert (outcome.status, outcome.reason) == ("failed", reason)


@pytest.mark.parametrize(
    ("problem", "solution", "redefines"),
    [
        (POLY, POLY.prompt + POLY.canonical_solution, False),
        (POLY, POLY.prompt + POLY.canonical_solution + "\ndef poly(xs, x):\n    return 0.0\n", True),
        (POLY, "import math\ndef poly(xs, x):\n    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n", True),
        (POLY, POLY.prompt.replace("Evaluates", "Computes") + POLY.canonical_solution, False),  # its docstring alone
        (POLY, "def find_zero(xs):\n    return 0.0\n", True),  # without it
        (POLY, "def poly(", False),
        (CLOSE, CLOSE.prompt + "    return True\ndef helper(): pass\n", False),
    ],
)
def test_answers_that_redefine_a_helper_of_the_prompt_are_found(
    problem: Problem, solution: str, redefines: bool
) -> None:
    assert redefines_helper(problem, solution) is redefines


def test_an_answer_may_end_in_a_line_that_goes_on() -> None:
    completion = CLOSE.canonical_solution + "x = 1 \\"  # a blank line of the tests ends it
    assert failures({"a": Judge().program(CLOSE, CLOSE.solution(completion))}) == {}


@pytest.mark.parametrize(
    ("tests", "split"),
    [
        ("def check(candidate):\n    assert candidate(1) == helper(2)\n", True),
        ("def check(candidate):\n    assert candidate(1) == entry(2)\n", True),
        ("import math\ndef check(candidate):\n    assert math.isclose(candidate(1), 2)\n", True),
        ("def check(candidate):\n    for key in range(3):\n        assert candidate(key)\n", True),
        ("def check(candidate):\n    assert candidate(lambda: 1)\n", False),
        ("def check(candidate):\n    assert candidate(Made()) == 1\n", False),
        ("def check(candidate):\n    assert map(entry, [1])\n", False),
    ],
)
def test_tests_are_split_from_the_answer_where_they_need_nothing_of_it(tests: str, split: bool) -> None:
    prompt = "def helper(x):\n    return x\n\ndef entry(x):\n    'text'\n"
    program = Judge().program(Problem("T/0", prompt, tests, "entry", "    return 1\n"), prompt + "    return 1\n")
    assert bool(program.checker) is split
    assert program.calls == (("entry",) if split else ())


def plus_benchmark(problem: Problem) -> Benchmark:
    tasks = {problem.task_id: problem}
    return Benchmark(problem.kind, "", "0" * 64, "", "", tasks, tasks)


def plus_problem(name: str, canonical: str, base: list, plus: list, kind: str = "mbpp_plus") -> Problem:
    return Problem("Mbpp/1", "", "", name, canonical, kind=kind, plus=PlusTests(base, plus, 0))  # type: ignore[arg-type]


def test_evalplus_verdicts_name_the_first_wrong_call(tmp_path: Path) -> None:
    problem = plus_problem("f", "def f(x):\n    return x + 1\n", [[1], [2]], [[3]])
    judge = Judge(ground_truth(plus_benchmark(problem), str(tmp_path)), min_time_limit_s=0.3)
    programs = {
        "base": judge.program(problem, "def f(x):\n    return x + 1 if x < 2 else 0\n", "base"),
        "plus": judge.program(problem, "def f(x):\n    return x + 1 if x < 3 else 1 // 0\n", "plus"),
        "slow": judge.program(problem, "def f(x):\n    while x == 3: pass\n    return x + 1\n", "plus"),
        "right": judge.program(problem, "def f(x):\n    return x + 1\n", "plus"),
    }
    found = outcomes(programs)
    assert found["base"].failure == {"input": "2", "expected": "3", "actual": "0"}
    assert found["base"].detail == "AssertionError: f(2) is 0"
    assert found["plus"].failure is not None
    assert found["plus"].failure["actual"].startswith("raised ZeroDivisionError")
    assert found["slow"].status != "passed"
    assert found["right"].status == "passed"
    assert programs["right"].timeout_s == pytest.approx(2.3, abs=0.2)


def test_results_that_are_large_or_cannot_cross(tmp_path: Path) -> None:
    large = plus_problem("f", "def f(n):\n    return list(range(n))\n", [[3]], [[200_000]])
    truth = ground_truth(plus_benchmark(large), str(tmp_path / "large"))
    assert any(truth["Mbpp/1", "plus"].extra_s)
    assert len(truth["Mbpp/1", "plus"].expected) < 1000
    matches = plus_problem("check_str", "import re\ndef check_str(s):\n    return re.match('a', s)\n", [["a"]], [["b"]])
    judge, other = Judge(truth), Judge(ground_truth(plus_benchmark(matches), str(tmp_path / "matches")))
    found = outcomes(
        {
            "same": judge.program(large, "def f(n):\n    return [i for i in range(n)]\n", "plus"),
            "floats": judge.program(large, "def f(n):\n    return [float(i) for i in range(n)]\n", "plus"),
            "tuple": judge.program(large, "def f(n):\n    return tuple(range(n))\n", "plus"),
            "match": other.program(matches, "import re\ndef check_str(s):\n    return re.match('a', s)\n", "base"),
            "text": other.program(matches, "def check_str(s):\n    return 'Valid'\n", "base"),
            "none": other.program(matches, "def check_str(s):\n    return 'Valid'\n", "plus"),
        }
    )
    assert {key for key, outcome in found.items() if outcome.status == "passed"} == {"same", "floats", "match", "text"}
    assert found["tuple"].failure is not None
    assert found["tuple"].failure["actual"].startswith("(0, 1, 2, 3")


def test_arguments_are_not_copied_before_the_polynomial_is_looked_at(tmp_path: Path) -> None:
    problem = Problem(
        "HumanEval/32", "", "", "find_zero", "def find_zero(xs):\n    return -0.5\n", kind="humaneval_plus",
        plus=PlusTests([[[1, 2]]], [], 1e-4),
    )  # fmt: skip
    judge = Judge(ground_truth(plus_benchmark(problem), str(tmp_path)))
    altering = "def find_zero(xs):\n    xs[:] = [0]\n    return 7\n"
    assert failures({"a": judge.program(problem, altering)}) == {}
    assert failures({"a": judge.program(problem, "def find_zero(xs):\n    return 7\n")}) != {}


def test_ground_truth_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = plus_problem("f", "def f(x):\n    return {x: (x, [1.5])}\n", [[1]], [[2]])
    first = ground_truth(plus_benchmark(problem), str(tmp_path))
    (file,) = (tmp_path / "ground-truth").iterdir()
    computed = []

    def count(*args: object) -> dict:
        computed.append(args)
        return dict(first)

    monkeypatch.setattr(ground_truth_module, "_compute", count)
    assert ground_truth(plus_benchmark(problem), str(tmp_path)) == first
    assert computed == []
    for damaged in ("", "[]", json.dumps({"schema": "old"}), file.read_text()[:-20]):
        file.write_text(damaged)
        ground_truth(plus_benchmark(problem), str(tmp_path))
    assert len(computed) == 4


def test_a_canonical_solution_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    problem = plus_problem("f", "def f(x):\n    return 1 // x\n", [[0]], [])
    with pytest.raises(BenchmarkError, match=r"Mbpp/1: the canonical solution fails on its own base inputs.*Zero"):
        ground_truth(plus_benchmark(problem), str(tmp_path))


def test_benchmarks_without_plus_inputs_need_no_ground_truth() -> None:
    config = HumanEvalConfig(limit=1)
    assert prepare_judge(config, load_benchmark(config)).truth == {}
