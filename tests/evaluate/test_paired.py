"""The paired test against published and brute-forced p-values, and against chance itself."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from jaxwiz.evaluate.paired import FINEST_GRID, SIGNIFICANT, Tally, adjust_for_many, compare, permutation_test


def split(better: int, worse: int, same: int = 3) -> list[Fraction]:
    return [Fraction(1)] * better + [Fraction(-1)] * worse + [Fraction(0)] * same


def test_mcnemar_by_hand() -> None:
    assert permutation_test(split(0, 0)) == 1.0
    assert permutation_test(split(1, 1)) == 1.0
    assert permutation_test(split(5, 0)) == 2 / 32
    assert permutation_test(split(0, 6)) == 2 / 64
    assert permutation_test(split(8, 2)) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    # Agresti, Categorical Data Analysis, approval of the prime minister: 150 changed one way, 86 the other.
    assert permutation_test(split(150, 86, 1364)) == pytest.approx(3.716e-05, rel=1e-3)


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (3, 3), (12, 5), (40, 22), (160, 2)])
def test_one_sample_a_task_is_mcnemars_exact_test(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse, 0.5).pvalue
    assert permutation_test(split(better, worse)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("samples", [(20, 20), (10, 4), (7, 3)])
def test_several_samples_a_task_count_all_signs(samples: tuple[int, int]) -> None:
    draw = random.Random(2)
    first, second = ([Fraction(draw.randint(0, n), n) for _ in range(11)] for n in samples)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    sums = [
        abs(sum(sign * difference for sign, difference in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    expected = sum(value >= abs(sum(differences)) for value in sums) / len(sums)
    assert permutation_test(differences) == pytest.approx(expected, rel=1e-12)


def test_a_grid_too_fine_only_makes_the_test_more_careful() -> None:
    draw = random.Random(3)
    differences = [Fraction(draw.randint(-50, 90), 97) + Fraction(draw.randint(-2, 2), 89) for _ in range(60)]
    assert np.lcm.reduce([difference.denominator for difference in differences]) > FINEST_GRID
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(200_000, len(differences)))
    sums = np.abs(signs @ np.array([float(difference) for difference in differences]))
    simulated = float(np.mean(sums >= abs(float(sum(differences)))))
    assert simulated * 0.95 <= permutation_test(differences) <= simulated * 1.15 + 1e-3


def test_equal_systems_seldom_look_different() -> None:
    rng = np.random.default_rng(11)
    rounds, alarms = 400, 0
    for _ in range(rounds):
        rates = rng.beta(0.4, 0.4, 100)
        changes = rng.binomial(10, rates) - rng.binomial(10, rates)
        alarms += permutation_test([Fraction(int(change), 10) for change in changes]) < SIGNIFICANT
    # 5% is meant; above 8.5% happens once in 1,000 times. A test that never rang would be as wrong.
    assert 0.02 <= alarms / rounds <= 0.085


def test_a_real_difference_is_found() -> None:
    first = {str(task): Tally(10, 3) for task in range(60)}
    second = {str(task): Tally(10, 4 if task % 3 else 3) for task in range(60)}
    found = compare(first, second)
    assert (found.better, found.worse, found.same) == (40, 0, 20)
    assert found.difference == pytest.approx(0.1 * 2 / 3)
    assert found.low is not None and found.high is not None
    assert 0.05 < found.low < found.difference < found.high < 0.085
    assert found.p_value == pytest.approx(2 / 2**40)


def test_compare_pairs_by_task() -> None:
    first = {"a": Tally(2, 0), "b": Tally(1, 1), "c": Tally(2, 1), "d": Tally(5, 1)}
    second = {"d": Tally(10, 2), "c": Tally(1, 1), "b": Tally(1, 0), "a": Tally(2, 1)}
    found = compare(first, second)
    assert (found.better, found.worse, found.same) == (2, 1, 1)
    assert found.difference == 0.0
    assert not found.significant


def test_where_too_little_differs_there_is_no_interval() -> None:
    same = {"a": Tally(1, 1), "b": Tally(1, 0)}
    found = compare(same, same)
    assert (found.low, found.high, found.p_value) == (None, None, 1.0)
    nothing = {str(task): Tally(1, 0) for task in range(40)}
    everything = {task: Tally(1, 1) for task in nothing}
    assert compare(nothing, everything).low is None  # all alike
    nine = nothing | {str(task): Tally(1, 1) for task in range(9)}
    assert compare(nothing, nine).low is None
    assert compare(nothing, nine | {"9": Tally(1, 1)}).low is not None


def test_holms_correction() -> None:
    # Holm (1979) by hand: 0.01 x 4, then 0.02 x 3, 0.03 x 2 and 0.04 x 1, none below the one before.
    assert adjust_for_many([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert adjust_for_many([0.7, 0.6]) == [1.0, 1.0]
    assert adjust_for_many([]) == []
