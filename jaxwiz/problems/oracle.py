"""EvalPlus' rules for right and wrong, as release 0.3.1 has them, run in the checker's process.

For each list of arguments the candidate is called, under that call's time limit, and its result compared:

    equal                                  right
    a tolerance holds for the task, or     close to within atol + 1e-7 x |expected|, if the types are the same; once a
    the expected value is of floats        task has expected floats, the tolerance of 1e-6 stays for its later calls
    special tasks                          by their own rule, below

Arguments are not copied before the call. The first wrong call ends the test.

In release 0.3.1 itself an answer to HumanEval/32 can't pass, not even the canonical one: a right result is not counted,
and the count is then found too small. Here its rule, |p(x)| <= atol, decides.

Standard library only, and nothing from the rest of jaxwiz; NumPy is imported where a result is no list of numbers.
"""

import marshal
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FLOAT_ATOL = 1e-6
RTOL = 1e-7
TEXT_LENGTH = 600  # of a reported value; the sandbox cuts to 500 bytes

NOT_NONE_TASKS = ("check_str", "text_match_three", "text_starta_endb")
SET_TASKS = (
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
)
VALUE, FINGERPRINT = 0, 1  # how an expected result is given


def run(payload: Mapping[str, Any], calls: Mapping[str, Any], report: Callable[..., None]) -> None:
    """Returns if all results are right, else raises.

    Args:
      payload: {"name", "family" ("humaneval" or "mbpp"), "atol", "arguments": a list per call,
        "expected": marshalled, (VALUE, value) or (FINGERPRINT, strict, loose, text) per call, "limits_s": per call}.
      calls: the candidate's functions by name: the tested one and, where results may be large or anything, the helpers
        that programs.py puts behind it.
      report: takes the first failing call's input, expected and actual value.
    """
    rules = Rules(payload["name"], payload["family"], payload["atol"])
    expected_results = marshal.loads(payload["expected"])
    cases = zip(payload["arguments"], expected_results, payload["limits_s"], strict=True)
    for arguments, expected, limit_s in cases:
        try:
            right, actual = answer(rules, calls, arguments, expected, limit_s)
        except BaseException as error:
            actual = f"raised {type(error).__name__}: {str(error)[:TEXT_LENGTH]}"
            report(input=call_text(arguments), expected=expected_text(rules, expected), actual=actual)
            raise
        if not right:
            actual = actual if expected[0] == FINGERPRINT else as_text(actual)
            report(input=call_text(arguments), expected=expected_text(rules, expected), actual=actual)
            wrong = AssertionError("wrong result")
            detail = f"AssertionError: {rules.name}({call_text(arguments)[:200]}) is {actual[:200]}"
            wrong.candidate_detail = detail  # type: ignore[attr-defined] # what the sandbox shows
            raise wrong


def answer(
    rules: "Rules", calls: Mapping[str, Any], arguments: Sequence[Any], expected: Sequence[Any], limit_s: float
) -> tuple[bool, Any]:
    """Returns whether the candidate is right for these arguments, and what it returned or, if that is large, its text.

    Raises whatever the candidate does.
    """
    if expected[0] == FINGERPRINT:
        fingerprint, text = calls["_jaxwiz_strict"].call(arguments, timeout_s=limit_s)
        return fingerprint == expected[1] or calls["_jaxwiz_loose"]() == expected[2], text
    if rules.needs_arguments:
        result, arguments = calls[rules.name].call(arguments, timeout_s=limit_s, want_arguments=True)
    else:
        function = "_jaxwiz_not_none" if rules.not_none else rules.name
        result = calls[function].call(arguments, timeout_s=limit_s)
    return rules.judge(result, expected[1], arguments), result


class Rules:
    """Decides results of one task, in the order of its calls."""

    def __init__(self, name: str, family: str, atol: float) -> None:
        """Starts with the task's own tolerance; `name` is that of the tested function."""
        self.name, self.family, self.atol = name, family, atol
        self.needs_arguments = family == "humaneval" and name == "find_zero"
        self.not_none = family == "mbpp" and name in NOT_NONE_TASKS

    def judge(self, result: Any, expected: Any, arguments: Sequence[Any]) -> bool:
        """Returns whether `result` is right for `arguments`; a comparison that fails makes it wrong.

        Args:
          result: what the candidate returned.
          expected: what the canonical solution returned; for not-None tasks whether that was not None.
          arguments: as the candidate left them.
        """
        try:
            return self._judge(result, expected, arguments)
        except Exception:
            return False

    def _judge(self, result: Any, expected: Any, arguments: Sequence[Any]) -> bool:
        equal = result == expected
        if self.family == "mbpp":
            equal = self._by_mbpp_rule(equal, result, expected, arguments)
        elif self.needs_arguments:
            return abs(polynomial(arguments[0], result)) <= self.atol
        if self.atol == 0 and is_floats(expected):
            self.atol = FLOAT_ATOL
        if not equal and self.atol != 0:
            if type(result) is not type(expected):
                return False
            if isinstance(expected, list | tuple) and len(result) != len(expected):
                return False
            return is_close(result, expected, self.atol)
        return bool(equal)

    def _by_mbpp_rule(self, equal: Any, result: Any, expected: Any, arguments: Sequence[Any]) -> Any:
        name = self.name
        if name == "are_equivalent":
            return equal or True
        if name == "sum_div":
            return equal or result == 0
        if name == "surface_Area":
            return equal or abs(result - pyramid_surface(*arguments)) <= self.atol
        if name == "digit_distance_nums":
            return equal or result == padded_digit_distance(*arguments)
        if name in SET_TASKS:
            return set(result) == set(expected)
        if self.not_none:
            return result == expected if isinstance(result, bool) else expected == (result is not None)
        return equal


def is_floats(value: Any) -> bool:
    """Returns whether a value is a float, or a list or tuple of nothing else."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def is_close(result: Any, expected: Any, atol: float) -> bool:
    """Returns what `numpy.allclose(result, expected, rtol=1e-7, atol=atol)` does, errors included.

    Numbers, and lists of as many numbers, need no NumPy.
    """
    if _is_number(result) and _is_number(expected):
        return _number_is_close(result, expected, atol)
    if (
        isinstance(result, list | tuple)
        and isinstance(expected, list | tuple)
        and len(result) == len(expected)
        and all(map(_is_number, result))
        and all(map(_is_number, expected))
    ):
        return all(_number_is_close(one, other, atol) for one, other in zip(result, expected, strict=True))
    import numpy

    return bool(numpy.allclose(result, expected, rtol=RTOL, atol=atol))


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) in (int, bool) and abs(value) < 2**63)


def _number_is_close(result: float, expected: float, atol: float) -> bool:
    if float(result) == float(expected):
        return True
    return math.isfinite(expected) and abs(result - expected) <= atol + RTOL * abs(expected)


def polynomial(coefficients: Sequence[float], x: float) -> float:
    """Returns the polynomial's value at x, lowest power first, as the prompt of HumanEval/32 computes it."""
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))


def pyramid_surface(base_edge: float, height: float) -> int:
    """Returns the rounded surface of a square pyramid whose height is perpendicular: right too for Mbpp/581."""
    slant_height = math.sqrt((base_edge / 2) ** 2 + height**2)
    return round(base_edge**2 + 4 * (base_edge * slant_height) / 2)


def padded_digit_distance(first: int, second: int) -> int:
    """Returns the sum of differences of digits, the shorter number padded with zeros: right too for Mbpp/558."""
    length = max(len(str(first)), len(str(second)))
    digits = zip(str(first).zfill(length), str(second).zfill(length), strict=True)
    return sum(abs(int(one) - int(other)) for one, other in digits)


def call_text(arguments: Sequence[Any]) -> str:
    """Returns arguments as they stand in a call."""
    return ", ".join(map(as_text, arguments))


def expected_text(rules: Rules, expected: Sequence[Any]) -> str:
    """Returns an expected result, or the rule that stands for it, as text."""
    if expected[0] == FINGERPRINT:
        return expected[3]
    if rules.needs_arguments:
        return f"a zero, to within {rules.atol}"
    if rules.not_none:
        return "not None" if expected[1] else "None"
    return as_text(expected[1])


def as_text(value: object) -> str:
    """Returns `repr(value)`, cut, whatever the value."""
    try:
        return repr(value)[:TEXT_LENGTH]
    except Exception:
        return f"an object of type {type(value).__name__} that cannot be printed"
