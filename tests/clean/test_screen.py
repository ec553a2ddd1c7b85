"""The checker that tries one function on many tests, run here without the sandbox around it."""

import marshal
from collections.abc import Callable
from typing import Any

import pytest

from jaxwiz.clean import screen


class Proxy:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def call(self, args: Any, kwargs: Any, timeout_s: float) -> Any:
        return self.function(*args, **kwargs)


def asserts(source: str) -> screen.Test:
    return ("f", marshal.dumps(compile(source, "t", "exec")), b"", False, False)


def inputs(source: str, arguments: list[list[Any]], as_set: bool = False, not_none: bool = False) -> screen.Test:
    return ("f", marshal.dumps(compile(source, "t", "exec")), marshal.dumps(arguments), as_set, not_none)


def run(function: Callable[..., Any], tests: list[screen.Test]) -> dict[str, str]:
    reported: dict[str, str] = {}
    calls = {screen.FUNCTION: Proxy(function), screen.NOT_NONE: Proxy(lambda *a: function(*a) is not None)}
    screen.run((1.0, tests), calls, lambda **fields: reported.update(fields))
    return reported


def test_it_reports_which_tests_pass():
    tests = [asserts("assert f(1) == 2"), asserts("assert f(1) == 3"), asserts("assert f(2) == 3")]
    assert run(lambda x: x + 1, tests) == {"at": "2", "passed": "0 2", "done": "yes"}


def test_a_canonical_solution_judges_inputs():
    tests = [
        inputs("def f(a): return sorted(a)", [[[3, 1]], [[2, 2]]]),
        inputs("def f(a): return list(reversed(sorted(a)))", [[[3, 1]]], as_set=True),
        inputs("def f(a): return a[0] > 2 or None", [[[3, 1]], [[1, 1]]], not_none=True),
        inputs("def f(a): return [0.1 + 0.2]", [[[3, 1]]]),
    ]
    assert run(sorted, tests)["passed"] == "0 1"
    assert run(lambda a: object() if a[0] > 2 else None, tests)["passed"] == "2"
    assert run(lambda a: [0.3], tests)["passed"] == "3"


def test_drawn_arguments_are_the_same_each_time():
    drawn: list[int] = []
    test = asserts("import random\nfor _ in range(5): f(random.randint(0, 1000))")
    run(lambda x: drawn.append(x), [test, test])
    run(lambda x: drawn.append(x), [test])
    assert drawn[:5] == drawn[5:10] == drawn[10:] and len(set(drawn)) > 1


def test_after_three_calls_out_of_time_it_stops():
    def slow(*_: Any) -> None:
        raise TimeoutError

    assert run(slow, [asserts("f(1)")] * 10) == {"at": "2"}


@pytest.mark.parametrize(
    ("expected", "result", "same"),
    [
        (0.3, 0.1 + 0.2, True),
        (1.0, 1, True),
        (1, 1.1, False),
        ([1.0, [2.0]], [1.0, [2.0 + 1e-9]], True),
        ((1,), [1], False),
    ],
)
def test_results_are_alike(expected: Any, result: Any, same: bool):
    assert screen.alike(expected, result) == same
