"""The tier that runs answers, in the real sandbox, on the made benchmark."""

import pytest

from jaxwiz.clean.decontaminate import Decontaminator
from jaxwiz.clean.execute import Executed, Executor, subject_of
from jaxwiz.clean.tasks import Task
from jaxwiz.clean.texts import Text

RENAMED = """def cap(piles, most):
    rest = []
    for pile in piles:
        if pile:
            rest.append(min(pile, most))
    return rest
"""
BY_ANOTHER_WAY = (
    "def cap(piles, most):\n    full = filter(None, piles)\n    return [p if p < most else most for p in full]\n"
)
LANTERN = "def lasts(level):\n    for _ in range(3):\n        level -= 2\n    return level > 0\n"


@pytest.fixture(scope="module")
def executor(tasks: list[Task]) -> Executor:
    return Executor(tasks, call_timeout_s=0.5, workers=1, unsafe_no_sandbox=False)


def run(executor: Executor, instruction: str, answer: str) -> Executed:
    return executor.run([Text("row", instruction, answer)])


@pytest.mark.parametrize(
    ("instruction", "answer", "detail"),
    [
        ("Go.", RENAMED.replace("cap", "drop_pebbles"), "passes the tests of drop_pebbles, under its own name"),
        ("Go.", RENAMED, "cap passes the tests of drop_pebbles, renamed, it is the reference solution"),
        ("Go.", f"Sure:\n```python\n{RENAMED}print(cap(undefined))\n```", "it is the reference solution"),
        ("Go.", BY_ANOTHER_WAY, "renamed, all of many"),
        (
            "Go.",
            "class Solver:\n"
            + "".join(f"    {line}\n" for line in BY_ANOTHER_WAY.replace("(", "(self, ", 1).splitlines()),
            "Solver().cap passes the tests of drop_pebbles",
        ),
    ],
)
def test_a_planted_answer_is_found_and_no_text_tier_would(
    tasks: list[Task], executor: Executor, instruction: str, answer: str, detail: str
):
    if "drop_pebbles" not in answer:
        text_tiers = Decontaminator(tasks)
        assert text_tiers.find(Text("row", instruction, answer)) is None
    found = run(executor, instruction, answer)
    assert found.hits[0].task_id == "HumanEval/0" and found.hits[0].tier == "tests"
    assert detail in found.hits[0].detail
    assert (found.rows, found.functions, found.unfinished) == (1, 1, 0)


def test_a_pass_of_few_tests_needs_the_rows_words(executor: Executor):
    found = run(executor, "Is there still water?", LANTERN)
    assert not found.hits and [(one.task_id, one.why) for one in found.passes] == [("Mbpp/11", "no further evidence")]
    asked = "Tell whether the lantern, with its oil, burns until the morning watch comes."
    assert "of the task's words" in run(executor, asked, LANTERN).hits[0].detail


@pytest.mark.parametrize(
    "answer", ["return x + y", "def add(x, y):\n    return x + y\n", "def put_together(a, b): return a + b"]
)
def test_a_sum_of_two_is_nobodys(executor: Executor, answer: str):
    found = run(executor, "Add.", answer)
    assert not found.hits and {one.why for one in found.passes} <= {"trivial"}


@pytest.mark.parametrize(
    ("answer", "functions", "unfinished"),
    [
        ("No code at all.", 0, 0),
        ("def f(a, b, c, d): return a", 0, 0),  # no task calls with four
        ("def f(a, b): raise SystemExit", 1, 0),
        ("import os\ndef f(a, b): os._exit(0)", 1, 1),
        ("class N: pass\ndef f(a, b): return N()", 1, 0),  # can't leave the sandbox; the next task is tried
        ("while True: pass\ndef f(a, b): return a", 1, 0),  # what the program does beside defining is left out
    ],
)
def test_what_passes_nothing(executor: Executor, answer: str, functions: int, unfinished: int):
    found = run(executor, "Go.", answer)
    assert (found.hits, found.passes, found.functions, found.unfinished) == ({}, [], functions, unfinished)


def test_an_endless_call_ends(executor: Executor):
    found = run(executor, "Go.", "def f(a, b):\n    while True: pass\n")
    assert (found.hits, found.functions) == ({}, 1)


def test_hits_belong_to_their_rows_for_any_number_of_workers(tasks: list[Task]):
    rows = [Text(f"row {n}", "Go.", RENAMED if n % 3 == 0 else f"def f(a, b): return {n}") for n in range(12)]
    found = [Executor(tasks, 0.5, workers, False).run(rows) for workers in (1, 3)]
    assert found[0] == found[1]
    assert sorted(found[0].hits) == [0, 3, 6, 9]


def test_words_that_say_what_a_task_is_about():
    assert subject_of("Write a function getMaxItem to find the maximums of 2 lists") == {
        "get", "max", "item", "maximum", "list"
    }  # fmt: skip
