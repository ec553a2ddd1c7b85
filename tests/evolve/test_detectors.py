"""The optional detectors, by tables of boundary cases."""

import pytest

from jaxwiz.evolve.detectors import adds_words_only, answered_instead, asks_back


@pytest.mark.parametrize(
    ("evolved", "answered"),
    [
        ("```python\npass\n```", True),
        ("Below:\n```python\npass\n```", False),
        ("def f():\n    return 1", True),
        ("import os", True),
        ("from math import sqrt", True),
        ("Here's a Python function that sorts:", True),
        ("Here is one possible solution.", True),
        ("Sure, let me do that.", True),
        ("Here is a list of numbers; sort it.", False),
        ("From a file, read lines.", False),
        ("Import a CSV file and sum up a column.", False),
        ("Define a class.", False),
    ],
)
def test_an_answer_in_place_of_a_rewriting_begins_like_one(evolved, answered):
    assert answered_instead(evolved, "Sort a list.") is answered


def test_a_parent_that_begins_with_code_may_have_children_that_do():
    assert not answered_instead("def f(x): return x  # make it total", "def f(x): pass  # complete")


@pytest.mark.parametrize(
    ("response", "asks"),
    [
        ("Understood. What shall I do?", True),
        ("Thank you! Which list?", True),
        ("Sure, which one?\n", True),
        ("Could you Please\nprovide the code.", True),
        ("Sure, here it is.", False),
        ("Surely you know? Yes?", False),
        ("Why? Thank you?", False),
        ("It pleases providers.", False),
    ],
)
def test_asking_back_is_found(response, asks):
    assert asks_back(response) is asks


CODE = "Fix this:\n```python\ndef f(x):\n    return x\n```\nIt must be fast."


@pytest.mark.parametrize(
    ("parent", "evolved", "adds"),
    [
        (CODE, CODE.replace("fast.", "fast and also very short, please."), True),
        (CODE, "Please " + CODE, True),
        (CODE, CODE, False),  # nothing is added: that is "unchanged"
        (CODE, CODE.replace("return x", "return x + 1") + " Add words.", False),
        (CODE, CODE.replace("fast", "stable and short"), False),  # a word was replaced
        (CODE, CODE + "\n```python\nf(2)\n```\nmore", False),  # code was added
        ("Sort a list.", "Sort a long list.", False),  # no code
        ("def f(x):\n    return x", "def f(x):\n    return x\nMake it total.", True),
        ("def f(x):\n    return x", "def f(x):\n    return x or 0\nMake it total.", False),
    ],
)
def test_words_added_around_unchanged_code(parent: str, evolved: str, adds: bool):
    assert adds_words_only(evolved, parent) is adds
