"""Whether two systems differ on the same tasks, or only by chance.

The test is the exact two-sided permutation test on the tasks' differences in pass rate: if the systems were equal, each
difference could as well have had the other sign. It counts, over all 2^N choices of signs, those whose sum is at least
as far from zero as the one seen. With one sample a task that is McNemar's exact test; with n samples it weighs a task
by how much its rate changed. Nothing is drawn at random: differences are whole multiples of one fraction, so the sum's
distribution is built task by task.

The interval of the difference is the bootstrap over tasks of passk.py, given where at least ten tasks differ: fewer are
too few to resample, and would seem certain. At the edge it can disagree with the test, which decides what is noise.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from jaxwiz.evaluate.passk import bootstrap_interval

SIGNIFICANT = 0.05
FEWEST_DIFFERING = 10
FINEST_GRID = 2_000  # steps of a pass rate; rates on a finer grid are rounded to it


@dataclasses.dataclass(frozen=True)
class Tally:
    """How many samples of one task there are, and how many passed."""

    samples: int
    passed: int

    @property
    def rate(self) -> Fraction:
        """The share that passed, exact."""
        return Fraction(self.passed, self.samples)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a second system's pass rates differ from a first one's, task by task.

    Attributes:
      better: tasks that the second passes more often.
      worse: tasks that it passes less often.
      same: tasks with equal rates.
      difference: mean pass rate of the second less that of the first.
      low: lower end of the difference's 95% interval; None where too few tasks differ, or all alike, to resample them.
      high: its upper end, or None.
      p_value: probability of a difference at least as large between equal systems.
    """

    better: int
    worse: int
    same: int
    difference: float
    low: float | None
    high: float | None
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether equal systems would show this less than once in twenty times."""
        return self.p_value < SIGNIFICANT


def compare(first: Mapping[str, Tally], second: Mapping[str, Tally]) -> Comparison:
    """Returns how the pass rates of two systems, by task id over the same tasks, differ."""
    differences = [second[task_id].rate - tally.rate for task_id, tally in first.items()]
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    low, high = None, None
    if better + worse >= FEWEST_DIFFERING and len(set(differences)) > 1:
        low, high = bootstrap_interval([float(difference) for difference in differences])
    return Comparison(
        better,
        worse,
        len(differences) - better - worse,
        float(sum(differences) / len(differences)),
        low,
        high,
        permutation_test(differences),
    )


def permutation_test(differences: Sequence[Fraction]) -> float:
    """Returns the exact two-sided p-value of paired differences in [-1, 1]; 1.0 if none differs from zero.

    Where their common fraction is finer than 1/FINEST_GRID they are rounded to that grid, and sums that rounding could
    have moved count as extreme, which can only raise the p-value.
    """
    grid = math.lcm(*(difference.denominator for difference in differences))
    rounding = 0 if grid <= FINEST_GRID else len(differences)
    grid = min(grid, FINEST_GRID)
    steps = [round(difference * grid) for difference in differences]
    sizes = [abs(step) for step in steps if step]
    total, seen = sum(sizes), abs(sum(steps)) - rounding
    # Probability of each sum of the positively signed sizes; the signed sum is then 2 x sum - total.
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    reached = 0
    for size in sizes:
        probability[size : reached + size + 1] += probability[: reached + 1].copy()
        reached += size
        probability[: reached + 1] /= 2
    signed = 2 * np.arange(total + 1) - total
    return min(1.0, float(probability[np.abs(signed) >= seen].sum()))


def adjust_for_many(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of several comparisons with Holm's correction, so that together they err at most as often.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
