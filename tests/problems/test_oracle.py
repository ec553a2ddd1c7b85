"""EvalPlus' rules, case by case; tests/parity holds them to EvalPlus itself."""

from typing import Any

import numpy as np
import pytest

from jaxwiz.problems import asserts, fingerprint, oracle
from jaxwiz.problems.oracle import Rules, is_close, is_floats

NAN, INF = float("nan"), float("inf")


def judged(result: Any, expected: Any, name: str = "f", atol: float = 0, family: str = "mbpp", *arguments: Any) -> bool:
    return Rules(name, family, atol).judge(result, expected, arguments)


@pytest.mark.parametrize(
    ("result", "expected", "right"),
    [
        (1, 1, True),
        (1, True, True),
        (1.0, 1, True),  # equal, whatever the types
        ([1], (1,), False),
        ((1, 2), [1, 2], False),
        ("a", "a", True),
        (1, 1.0, True),
        (1.0 + 5e-7, 1.0, True),  # floats are given 1e-6
        (1.0 + 5e-6, 1.0, False),
        (1e9 + 50, 1e9, True),  # and one part in ten million
        (1e9 + 200, 1e9, False),
        (np.float64(1.0), 1.0, True),
        (np.float64(1.0 + 5e-7), 1.0, False),  # but only if the types are the same
        ([1.0 + 5e-7, 2.0], [1.0, 2.0], True),
        ((1.0 + 5e-7, 2.0), [1.0, 2.0], False),
        ([1.0 + 5e-7], [1.0, 2.0], False),
        ([1.0 + 5e-7, 2], [1.0, 2.0], True),
        ([1 + 5e-7, 2.0], [1, 2.0], False),  # not all floats: no tolerance
        ([], [], True),
        ([NAN], [1.0], False),
        (NAN, NAN, False),
        (INF, INF, True),
        (-INF, INF, False),
        (1.0, INF, False),
        ([1.0, None], [1.0, 2.0], False),
        ("ab", [1.0, 2.0], False),
        ([[1.0, 2.0 + 1e-7], [1.0, 2.0]], [1.0, 2.0], True),  # NumPy broadcasts
        (np.array([1, 2]), [1, 2], False),  # has no truth value
        (np.array([1]), [1], True),
        ({1}.__class__([1]), {1}, True),
        (iter([1]), [1], False),
        (None, 1, False),
    ],
)
def test_results_are_compared_as_evalplus_does(result: Any, expected: Any, right: bool) -> None:
    assert judged(result, expected) is right


def test_a_float_among_expected_values_gives_later_calls_a_tolerance() -> None:
    rules = Rules("f", "mbpp", 0)
    assert not rules.judge((1, 2.0 + 1e-7), (1, 2.0), [])
    assert rules.judge(1.0, 1.0, [])
    assert rules.judge((1, 2.0 + 1e-7), (1, 2.0), [])
    assert Rules("f", "mbpp", 1e-4).judge(1.00005, 1.0, [])


@pytest.mark.parametrize(
    ("name", "result", "expected", "arguments", "right"),
    [
        ("are_equivalent", "anything", True, (), True),
        ("sum_div", 0, 7, (), True),
        ("sum_div", 1, 7, (), False),
        ("similar_elements", [5, 4, 4], (4, 5), (), True),
        ("similar_elements", [[5]], (4, 5), (), False),  # not hashable
        ("similar_elements", iter((4, 5)), (4, 5), (), True),
        ("check_str", "match", True, (), True),
        ("check_str", None, False, (), True),
        ("check_str", None, True, (), False),
        ("check_str", False, False, (), True),
        ("check_str", False, True, (), False),
        ("surface_Area", 33, 33, (3, 4), True),
        ("surface_Area", 35, 33, (3, 4), True),  # the height taken as that of the pyramid
        ("surface_Area", 34, 33, (3, 4), False),
        ("surface_Area", None, 33, (3, 4), False),
        ("digit_distance_nums", 8, 7, (1, 23), False),
        ("digit_distance_nums", 4, 7, (1, 23), True),  # 01 and 23
        ("digit_distance_nums", 4, 7, (-1, 23), False),
    ],
)
def test_special_tasks_of_mbpp(name: str, result: Any, expected: Any, arguments: Any, right: bool) -> None:
    assert judged(result, expected, name, 0, "mbpp", *arguments) is right
    if name == "sum_div":
        assert not judged(0, 7, name, 0, "humaneval")


def test_find_zero_is_judged_by_the_polynomial() -> None:
    assert judged(-0.5, "unused", "find_zero", 1e-4, "humaneval", [1, 2])
    assert judged(-0.50004, "unused", "find_zero", 1e-4, "humaneval", [1, 2])
    assert not judged(-0.5001, "unused", "find_zero", 1e-4, "humaneval", [1, 2])
    assert not judged(None, "unused", "find_zero", 1e-4, "humaneval", [1, 2])


def test_is_floats() -> None:
    assert [is_floats(value) for value in (1.0, [1.0], (1.0, 2.0), [], [1.0, 2], 1, "a", {1.0})] == [
        True, True, True, False, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("atol", [1e-6, 1e-4, 0.5])
def test_closeness_without_numpy_is_numpys(atol: float) -> None:
    numbers = [0, 1, True, -3, 0.0, -0.0, 1e-7, 1.0000001, 1 + 1e-6, 1e300, -1e300, INF, -INF, NAN, 2**53 + 1, 2**62]
    for one in numbers:
        for other in numbers:
            with np.errstate(all="ignore"):
                wanted = bool(np.allclose(one, other, rtol=1e-7, atol=atol))
                assert is_close(one, other, atol) is wanted, (one, other)
                assert is_close([0, one], (0.0, other), atol) is wanted, (one, other)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ([1, 2], [1.0, True + 1], True),
        ([1, (2, "a")], [1, (2.0, "a")], True),
        ([1, (2, "a")], [1, [2, "a"]], False),
        ([1.5], [1.5], True),
        ([0.1 + 0.2], [0.3], False),
        ([None, -0.0], [None, 0], True),
        ([1e300], [int(1e300)], True),
        ([np.int64(3)], [3], True),
        ([2**70], [2.0**70], True),
    ],
)
def test_equal_values_have_equal_loose_fingerprints(one: Any, other: Any, equal: bool) -> None:
    assert (one == other) is equal
    prints = []
    for value in (one, other):
        fingerprint.strict(value)
        prints.append(fingerprint.loose())
    assert (prints[0] == prints[1]) is equal
    assert "" not in prints


def test_strict_fingerprints_tell_types_apart_and_do_not_depend_on_how_a_value_was_made() -> None:
    assert fingerprint.strict([1])[0] != fingerprint.strict([True])[0]
    shared = "ab" * 3
    assert fingerprint.strict([shared, shared])[0] == fingerprint.strict(["ab" * 3, "".join(["abab", "ab"])])[0]
    assert fingerprint.strict([{1}, object()])[0] == ""
    assert fingerprint.loose() == ""
    assert fingerprint.strict(10**5000)[1].startswith("a large")


def test_only_large_values_of_simple_types_are_fingerprinted() -> None:
    assert fingerprint.is_large("x" * 70_000)
    assert fingerprint.is_large(list(range(70_000)))
    assert not fingerprint.is_large(list(range(70)))
    assert not fingerprint.is_large([{1}] * 70_000)
    assert not fingerprint.is_large(dict.fromkeys(range(70000), 1))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("assert f(1) == [2, 3]", "[2, 3]"),
        ("assert 3 == f(1)", "3"),
        ("assert f(1) is None", "None"),
        ("assert abs(f(1) - 2) < 1e-6", "abs(f(1) - 2) < 1e-06"),
        ("assert set(f(1)) == set((4, 5))", "set(f(1)) == set((4, 5))"),
        ("assert not f(1)", "not f(1)"),
    ],
)
def test_what_an_assertion_wants(source: str, expected: str) -> None:
    failing = asserts.failing_assert(f"x = 1\n{source}\n", 2)
    assert asserts.expected_text(failing) == expected
    assert asserts.failing_assert(source, 5) is None


def test_values_that_cannot_be_printed() -> None:
    assert oracle.as_text(10**5000) == asserts.as_text(10**5000) == "an object of type int that cannot be printed"
