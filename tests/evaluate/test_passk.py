"""The estimators against counting by hand, brute force, another implementation and known truths."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from jaxwiz.evaluate import passk
from jaxwiz.evaluate.passk import bootstrap_interval, estimate, pass_at_k


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(200, 1, 100) == 0.5
    assert pass_at_k(10, 3, 8) == 1.0  # fewer failures than draws
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)


@pytest.mark.parametrize(("samples", "passed", "k"), [(1, 0, 2), (3, 4, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_was_not_measured(samples: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="is not defined"):
        pass_at_k(samples, passed, k)


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 131 + [0.0] * 33,
        [1.0] * 12 + [0.0] * 152,
        [0.05 * (i * i % 21) for i in range(164)],
        [-1.0] * 9 + [0.0] * 150 + [1.0] * 5,  # differences between two systems
    ],
)
def test_bootstrap_agrees_with_scipy(values: list[float]) -> None:
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", random_state=1)
    found = bootstrap_interval(values)
    # Means move in steps of 1/164 of the values' grain, and both draw at random: two such steps are allowed.
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=2 / 164)
    assert found == bootstrap_interval(values)


def test_intervals_do_not_shrink_to_nothing_at_the_ends() -> None:
    # Newcombe (1998), table I: 0 of 20 and 1 of 29.
    nothing = estimate([0.0] * 20)
    assert (nothing.value, nothing.low, round(nothing.high, 4), nothing.method) == (0.0, 0.0, 0.1611, "wilson")
    one = estimate([1.0] + [0.0] * 28)
    assert (round(one.low, 4), round(one.high, 4), one.method) == (0.0061, 0.1718, "wilson")
    everything = estimate([1.0] * 20)
    assert (round(everything.low, 4), everything.high, everything.method) == (0.8389, 1.0, "wilson")
    assert estimate([0.5] * 100).method == "wilson"  # nothing varies, so nothing can be resampled
    assert estimate([1.0] * 5 + [0.0] * 100).method == "bootstrap"


Draw = Callable[[np.random.Generator], np.ndarray]


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda rng: rng.random(164) < 0.5, 0.5, id="164 tasks, 1 sample, 50%"),
        pytest.param(lambda rng: rng.random(164) < 0.03, 0.03, id="164 tasks, 1 sample, 3%"),
        pytest.param(lambda rng: rng.random(40) < 0.85, 0.85, id="40 tasks, 1 sample, 85%"),
        pytest.param(lambda rng: rng.binomial(20, rng.beta(0.3, 0.7, 164)) / 20, 0.3, id="164 tasks, 20 samples, 30%"),
    ],
)
def test_intervals_cover_the_truth_19_times_in_20(draw: Draw, truth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passk, "RESAMPLES", 2_000)  # five times as fast, hardly another interval
    rng = np.random.default_rng(5)
    rounds = 250
    intervals = [estimate([float(value) for value in draw(rng)]) for _ in range(rounds)]
    covered = sum(interval.low <= truth <= interval.high for interval in intervals)
    # A right interval of exactly 95% would fall below 0.90 once in 1,000 times. Counts are discrete and Wilson's
    # interval, which the 3% case mostly takes, is a little wide, so the upper bound only excludes useless ones.
    assert 0.90 <= covered / rounds <= 0.995
