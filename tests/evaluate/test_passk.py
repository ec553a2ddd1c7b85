"""The estimators against counting by hand, by brute force and against published values."""

import itertools

import pytest

from jaxwiz.evaluate.passk import compare, estimate, pass_at_k, sign_test


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("samples", "passed", "k"), [(1, 0, 2), (3, 4, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_was_not_measured(samples: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(samples, passed, k)


def test_wilson_interval() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    found = estimate([1.0] * 81 + [0.0] * 182)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    nothing = estimate([0.0] * 20)
    assert (nothing.value, nothing.low, round(nothing.high, 4)) == (0.0, 0.0, 0.1611)
    assert estimate([1.0] * 20).high == 1.0


def test_sign_test_by_hand() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(1, 1) == 1.0
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(0, 6) == 2 / 64
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_compare_pairs_by_task() -> None:
    found = compare({"a": 0.0, "b": 1.0, "c": 0.5, "d": 0.2}, {"d": 0.2, "c": 1.0, "b": 0.0, "a": 0.5})
    assert (found.better, found.worse, found.same) == (2, 1, 1)
    assert found.difference == pytest.approx(0.0)
    assert not found.significant
