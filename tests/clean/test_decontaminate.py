"""Each tier of the texts finds what it claims, alone, and lets innocent neighbours pass."""

import textwrap

import pytest

from jaxwiz.clean.config import TIERS, Tier
from jaxwiz.clean.decontaminate import Decontaminator
from jaxwiz.clean.tasks import Task
from jaxwiz.clean.texts import Text
from tests.clean.made import PROMPT, SOLUTION

PROSE = "Take from every heap the pebbles beyond the limit and give back what is left, heap by heap."
LANTERN = "Write a function to tell whether a lantern of a given oil burns until the morning watch comes."

PLANTED: list[tuple[Tier, str, str, str]] = [
    ("equal", "HumanEval/0", PROMPT, "anything"),
    ("equal", "HumanEval/0", PROMPT.upper(), "anything"),
    ("equal", "HumanEval/0", "Do it.", textwrap.fill(f"{PROMPT}{SOLUTION}", 30)),
    ("equal", "Mbpp/11", LANTERN.replace(" ", "\n\t"), ""),
    ("contained", "HumanEval/0", f"Please solve this:\n{PROMPT}Thank you.", ""),
    ("contained", "HumanEval/0", "Do it.", f"Here:\n```python\ndef f(heaps, limit):\n{SOLUTION}```"),
    ("contained", "HumanEval/0", "Do it.", SOLUTION.replace("for heap", "ＦＯＲ　heap") + "print(1)"),
    ("contained", "Mbpp/11", f"1. {LANTERN.lower()} 2. Explain.", ""),
    ("runs", "HumanEval/0", "Please take from every heap the pebbles beyond the limit and count them.", ""),
    ("runs", "Mbpp/11", "Say if a lantern of a given oil burns until the morning comes", ""),
    ("example", "HumanEval/0", "Improve `drop_pebbles` so that for [3,0,12], 5 it does not loop.", ""),
    ("example", "HumanEval/0", "Write drop_pebbles.", "print(drop_pebbles([3, 0, 12], 5))"),
]


@pytest.mark.parametrize(("tier", "task_id", "instruction", "answer"), PLANTED)
def test_a_tier_alone_finds_what_it_claims(tasks: list[Task], tier: Tier, task_id: str, instruction: str, answer: str):
    hit = Decontaminator(tasks, [tier]).find(Text("row", instruction, answer))
    assert hit is not None and (hit.tier, hit.task_id) == (tier, task_id)


@pytest.mark.parametrize(("tier", "task_id", "instruction", "answer"), PLANTED)
def test_without_the_tiers_up_to_it_the_row_would_pass_them(
    tasks: list[Task], tier: Tier, task_id: str, instruction: str, answer: str
):
    earlier = TIERS[: TIERS.index(tier)]
    assert Decontaminator(tasks, earlier).find(Text("row", instruction, answer)) is None


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("", ""),
        ("Add two numbers.", "return x + y"),  # the whole body of a solution, and nobody's own
        ("Add two numbers.", "def f(x, y):\n    return x + y"),
        ("Call drop_pebbles on your own data.", ""),  # the name alone
        ("Sort [3, 0, 12], 5 without a library.", ""),  # the example alone
        ("For drop_pebbles in names: [3, 0, 12], 5", ""),  # the name of a variable
        ("Take from every heap the pebbles beyond the border.", ""),  # nine words in common
        ("Write a function to tell whether a given number is prime or not.", ""),  # only how tasks are put
        ("Count.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"),
        ("Write a Python function that gives back the smallest number of a list.", "def f(a):\n    return min(a)"),
    ],
)
def test_innocent_text_passes(tasks: list[Task], instruction: str, answer: str):
    assert Decontaminator(tasks).find(Text("row", instruction, answer)) is None


def test_half_of_a_text_is_enough_and_less_is_not(tasks: list[Task]):
    index = Decontaminator(tasks, ["runs"])
    words = LANTERN.rstrip(".").split()
    runs = len(words) - 7
    half = " ".join(words[-(runs // 2 + runs % 2 + 7) :])
    hit = index.find(Text("row", half, ""))
    assert hit is not None and hit.task_id == "Mbpp/11"
    assert index.find(Text("row", " ".join(words[-9:]), "")) is None  # two runs of eight words


def test_a_text_cut_inside_words_is_found_within(tasks: list[Task]):
    glued = f"xx{PROSE.lower()[:-1]}xx"
    solution = SOLUTION.strip()
    assert Decontaminator(tasks, ["contained"]).find(Text("row", "", f"x{solution}x")) is not None
    assert Decontaminator(tasks, ["runs"]).find(Text("row", glued, "")) is not None
