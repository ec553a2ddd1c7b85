"""Functions in answers: what can be called, with how many arguments, and what they are up to their names."""

import pytest

from jaxwiz.clean.answers import functions_of, solution_skeleton


def calls(answer: str) -> dict[str, tuple[int, int]]:
    return {one.call: (one.fewest, one.most) for one in functions_of(answer)}


def test_functions_of_bare_code_and_of_fences():
    assert calls("def f(a, b=1):\n    return a\ndef g(*c): pass\n") == {"f": (1, 2), "g": (0, 100)}
    assert calls("Here:\n```python\ndef f(a): return a\n```\nand\n```\ndef g(): return f(1)\n```") == {
        "f": (1, 1),
        "g": (0, 0),
    }
    assert calls("First ```x``` then\n```py\ndef f(a): return a") == {"f": (1, 1)}  # a fence left open


def test_methods_count_where_the_class_needs_nothing():
    code = "class A:\n    def f(self, a): return a\n    @staticmethod\n    def g(a): return a\n"
    code += "    def __len__(self): return 1\n"
    assert calls(code) == {"A().f": (1, 1), "A().g": (1, 1)}
    assert calls("class A:\n    def __init__(self, x): pass\n    def f(self, a): return a\n") == {}


@pytest.mark.parametrize("answer", ["", "The answer is 3.", "print(1)", "def f(:", "function f(a) { return a }"])
def test_what_is_no_function_is_none(answer: str):
    assert functions_of(answer) == []


def test_what_an_answer_does_besides_does_not_keep_it_from_running():
    (function,) = functions_of("import nothing_here\nlimit = 3\ndef f(a): return a + limit\nprint(f(undefined))\n")
    space: dict = {}
    exec(function.source, space)
    assert space["f"](1) == 4


def test_skeletons_are_equal_up_to_names_and_annotations():
    here = 'def f(xs: list, k) -> int:\n    """Doc."""\n    total = 0\n    for x in xs:\n        total += g(x) * k\n'
    here += "    return total\ndef g(a): return a\n"
    there = "def other(p, q):\n    r = 0\n    for s in p:\n        r += u(s) * q\n    return r\ndef u(v): return v\n"
    assert solution_skeleton(here, "f") == solution_skeleton(there, "other") != ""
    assert functions_of(here)[0].skeleton == solution_skeleton(there, "other")
    assert solution_skeleton(there.replace("*", "+"), "other") != solution_skeleton(here, "f")
    assert solution_skeleton(there.replace("r = 0", "r = 1"), "other") != solution_skeleton(here, "f")
    assert solution_skeleton("def f(a): return len(a)", "f") != solution_skeleton("def f(a): return max(a)", "f")
    assert solution_skeleton("x = 1", "f") == ""


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("return x + y", 4),
        ("'''Doc.'''\n    return x % 2 == 0", 6),
        ("return [i * 2 for i in x if i > y]", 10),
        ("z = x\n    return z", 5),
        ("print(x)", 4),
    ],
)
def test_size_counts_statements_and_expressions(body: str, size: int):
    assert functions_of(f"def f(x, y=0):\n    {body}\n")[0].size == size
