"""A small benchmark made for the tests, in HumanEval's and in MBPP's format: nothing of theirs is quoted."""

import json
from pathlib import Path

from jaxwiz.clean.config import CleanConfig
from jaxwiz.clean.tasks import Task, load_tasks
from jaxwiz.problems.config import HumanEvalConfig, MbppConfig

PROMPT = '''from typing import List


def drop_pebbles(heaps: List[int], limit: int) -> List[int]:
    """ Take from every heap the pebbles beyond the limit and give back what is left, heap by heap.
    Heaps which were empty already are left out of the answer altogether.
    >>> drop_pebbles([3, 0, 12], 5)
    [3, 5]
    """
'''
SOLUTION = """    remaining = []
    for heap in heaps:
        if heap:
            remaining.append(min(heap, limit))
    return remaining
"""
TEST = """
def check(candidate):
    assert candidate([3, 0, 12], 5) == [3, 5]
    assert candidate([], 5) == []
    assert candidate([1, 2, 3], 2) == [1, 2, 2]
    assert candidate([0, 0], 1) == []
    assert candidate([9, 8, 7], 10) == [9, 8, 7]
    assert candidate([9, 0, 7], 1) == [1, 1]
"""
SUM_PROMPT = '''def put_together(x: int, y: int) -> int:
    """ Put x and y together.
    >>> put_together(2, 3)
    5
    """
'''

HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": PROMPT,
        "canonical_solution": SOLUTION,
        "test": TEST,
        "entry_point": "drop_pebbles",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": SUM_PROMPT,
        "canonical_solution": "    return x + y\n",
        "test": "def check(candidate):\n"
        + "".join(f"    assert candidate({x}, {x + 1}) == {2 * x + 1}\n" for x in range(8)),
        "entry_point": "put_together",
    },
]
MBPP = [
    {
        "task_id": 11,
        "text": "Write a function to tell whether a lantern of a given oil burns until the morning watch comes.",
        "code": "def burns_on(oil):\r\n  hours = 0\r\n  while oil > 0:\r\n    oil -= 2\r\n    hours += 1\r\n"
        "  return hours >= 4",
        "test_list": ["assert burns_on(8) == True", "assert burns_on(6) == False", "assert burns_on(7) == True"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
]


def clean_config(folder: Path, **changes: object) -> CleanConfig:
    """Returns a config whose benchmarks are the made ones, written to `folder`."""
    humaneval, mbpp = folder / "humaneval.jsonl", folder / "mbpp.jsonl"
    humaneval.write_text("".join(json.dumps(row) + "\n" for row in HUMANEVAL), encoding="utf-8")
    mbpp.write_text("".join(json.dumps(row) + "\n" for row in MBPP), encoding="utf-8")
    fields: dict[str, object] = {"benchmarks": (HumanEvalConfig(path=humaneval), MbppConfig(path=mbpp)), "workers": 1}
    return CleanConfig(**{**fields, **changes})  # type: ignore[arg-type]


def made_tasks(folder: Path) -> list[Task]:
    """Returns the made benchmarks' tasks."""
    return load_tasks(clean_config(folder).benchmarks)[1]
