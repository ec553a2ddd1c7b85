"""Runs one function against the tests of many tasks, in the checker's process, and says which of them it passes.

A test calls the function under the name that the task gives it. Nearly all tests end at their first call, so a task
costs about one. What the function leaves behind in its process is there for the next test, so a pass is worth something
only when a run of its own has repeated it. Tests that draw arguments, as HumanEval/53 does, draw the same each time:
whether a function passes that recurses as deep as its argument is large must not be a matter of luck.

Standard library only, and nothing from the rest of jaxwiz.
"""

import copy
import marshal
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FUNCTION = "_jaxwiz_function"
NOT_NONE = "_jaxwiz_not_none"  # the same, but whether the result is something: that can always leave its process
MOST_TIMEOUTS = 3
TOLERANCE = 1e-6

Test = tuple[str, bytes, bytes, bool, bool]


def run(payload: tuple[float, Sequence[Test]], calls: Mapping[str, Any], report: Callable[..., None]) -> None:
    """Reports, for tests by their number, the one "at" work and those that "passed"; at its end "done".

    Args:
      payload: (seconds that a call may take, tests). A test is (name of the function, marshalled code, marshalled lists
        of arguments, whether results are sets, whether they only must not be None). Without arguments the code is
        assertions; with some it defines the function that is right.
      calls: the candidate's function, as FUNCTION and as NOT_NONE.
      report: takes the numbers as text.
    """
    timeout_s, tests = payload
    timeouts = 0

    def call(*args: Any, _function: str = FUNCTION, **kwargs: Any) -> Any:
        nonlocal timeouts
        try:
            return calls[_function].call(args, kwargs, timeout_s=timeout_s)
        except TimeoutError:
            timeouts += 1
            raise

    passed: list[str] = []
    for number, test in enumerate(tests):
        report(at=str(number))
        random.seed(0)
        try:
            _require_pass(test, call)
        except BaseException:
            if timeouts >= MOST_TIMEOUTS:
                return
        else:
            passed.append(str(number))
            report(passed=" ".join(passed))
    report(done="yes")


def _require_pass(test: Test, call: Callable[..., Any]) -> None:
    name, code, inputs, as_set, not_none = test
    if not inputs:
        exec(marshal.loads(code), {name: call})
        return
    space: dict[str, Any] = {}
    exec(marshal.loads(code), space)
    for arguments in marshal.loads(inputs):
        expected = space[name](*copy.deepcopy(arguments))
        if not_none:
            right = call(*arguments, _function=NOT_NONE) == (expected is not None)
        elif as_set:
            right = set(call(*arguments)) == set(expected)
        else:
            right = alike(expected, call(*arguments))
        if not right:
            raise AssertionError


def alike(expected: Any, result: Any) -> bool:
    """Returns whether two results are equal, floats within a tolerance."""
    if isinstance(expected, float) and isinstance(result, float | int):
        return math.isclose(expected, result, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(expected, list | tuple) and type(expected) is type(result):
        return len(expected) == len(result) and all(map(alike, expected, result))
    return bool(expected == result)
