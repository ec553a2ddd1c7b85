"""Runs a benchmark's assertions against the candidate, in the checker's process, and says which call failed.

The tests are the benchmark's own source, unchanged: the tested function is a stand-in that calls the candidate and
remembers the last call. Only after a failure is the source looked at, for the failing assertion's other side.

Standard library only, and nothing from the rest of jaxwiz.
"""

import ast
import traceback
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

TESTS_NAME = "<tests>"
TEXT_LENGTH = 600  # of a reported value; the sandbox cuts to 500 bytes


def run(payload: tuple[str, CodeType], calls: Mapping[str, Any], report: Callable[..., None]) -> None:
    """Returns if the tests run to their end, else raises what they raise.

    Args:
      payload: (source of the tests, the same compiled as TESTS_NAME).
      calls: the candidate's functions by name, which the tests' source calls.
      report: takes the failing call's input, expected and actual value.
    """
    source, code = payload
    last: dict[str, Any] = {}
    namespace: dict[str, Any] = {name: _remembering(function, last) for name, function in calls.items()}
    try:
        exec(code, namespace)
    except BaseException as error:
        line = failing_line(error)
        failing = failing_assert(source, line) if line else None
        if last:
            raised = f"raised {type(error).__name__}: {str(error)[:TEXT_LENGTH]}"
            actual = as_text(last["result"]) if "result" in last else raised
            report(input=call_text(*last["call"]), expected=expected_text(failing), actual=actual)
        if isinstance(error, AssertionError) and failing is not None:
            detail = f"AssertionError: {ast.unparse(failing)[:TEXT_LENGTH]}"
            error.candidate_detail = detail  # type: ignore[attr-defined] # what the sandbox shows
        raise


def _remembering(function: Callable[..., Any], last: dict[str, Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        last.clear()
        last["call"] = args, kwargs
        last["result"] = result = function(*args, **kwargs)
        return result

    return call


def failing_line(error: BaseException) -> int | None:
    """Returns the line of the tests where an exception arose, the innermost; None if it was elsewhere."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == TESTS_NAME]
    return lines[-1] if lines else None


def failing_assert(source: str, line: int) -> ast.Assert | None:
    """Returns the `assert` statement that stands on a line of the tests, or None."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or node.lineno):
            return node
    return None


def expected_text(failing: ast.Assert | None) -> str:
    """Returns what an assertion wants: the other side of `call == value`, or the whole condition; "" for None."""
    if failing is None:
        return ""
    test = failing.test
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.Is) and len(test.ops) == 1:
        sides = [test.left, test.comparators[0]]
        called = [isinstance(side, ast.Call) and not _is_literal(side) for side in sides]
        if called == [True, False] or called == [False, True]:
            return ast.unparse(sides[called.index(False)])
    return ast.unparse(test)


def call_text(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Returns arguments as they stand in a call."""
    return ", ".join([*map(as_text, args), *(f"{name}={as_text(value)}" for name, value in kwargs.items())])


def as_text(value: object) -> str:
    """Returns `repr(value)`, cut, whatever the value."""
    try:
        return repr(value)[:TEXT_LENGTH]
    except Exception:
        return f"an object of type {type(value).__name__} that cannot be printed"


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True
