"""Prompts are worded as the published ones are."""

from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import Problem
from jaxwiz.problems.prompting import instruction, stop_strings

ADD = {"entry_point": "add", "test": "", "canonical_solution": "", "prompt": '"""\nAdd.\n"""\n', "description": "Add."}


def test_humaneval() -> None:
    problem = load_humaneval()["HumanEval/0"]
    assert instruction(problem, "completion") == problem.prompt
    tuned = instruction(problem, "wizardcoder")
    assert tuned.startswith("Create a Python script for this problem:\nfrom typing import List\n\n\ndef has_close")
    assert '\n\t""" Check if' in tuned
    assert "    " not in tuned
    assert f"```python\n{problem.prompt.rstrip()}\n```" in instruction(problem, "chat")


def test_mbpp() -> None:
    problem = Problem("Mbpp/11", **ADD, kind="mbpp", examples=("assert add(1,    2)", "assert add(2, 3)"))
    assert instruction(problem, "wizardcoder") == (
        "Create a Python script for this problem:\n\nAdd.\nTest examples:\nassert add(1,\t2)\nassert add(2, 3)"
    )
    assert instruction(problem, "completion") == '"""\nAdd.\n"""\n'
    assert "the following assertions:\n```python\nassert add(1," in instruction(problem, "chat")
    long = Problem("Mbpp/493", **ADD, kind="mbpp", examples=("assert add(1, 2)",))
    assert instruction(long, "wizardcoder").endswith("\ncalculate_polygons(startx, starty, endx, endy, radius)")


def test_mbpp_plus() -> None:
    problem = Problem("Mbpp/2", **ADD, kind="mbpp_plus", examples=("assert add(1, 2) == 3",))
    assert instruction(problem, "wizardcoder") == (
        "Add. Your code should satisfy the following assertion:\n```python\nassert add(1, 2) == 3\n```"
    )


def test_stop_strings() -> None:
    assert "\ndef " in stop_strings("completion", "humaneval")
    assert "\ndef " not in stop_strings("completion", "mbpp")
    assert "\nassert" in stop_strings("completion", "mbpp_plus")
    assert stop_strings("chat", "humaneval") == ()
