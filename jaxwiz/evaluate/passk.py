"""The numbers of an evaluation: pass@k without bias, its interval, and whether two systems differ.

Interval: Wilson's score interval at 95%, a task counting as one trial. A task's pass@k lies between 0 and 1, where no
distribution of a given mean varies more than hits and misses do, so for several samples a task it errs on the wide
side. It says how far another draw of tasks could move the number, needs no random draws, and, unlike a bootstrap, does
not shrink to nothing when all tasks pass or all fail.

Difference: the exact two-sided sign test over the tasks whose pass rate differs, which for one sample a task is
McNemar's exact test. If the systems were equal, either direction would be as likely for each such task.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

_NORMAL_97_5 = 1.959963984540054
SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over tasks and its 95% interval, all between 0 and 1."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a second system's pass rates differ from a first one's, task by task.

    Attributes:
      better: tasks that the second passes more often.
      worse: tasks that it passes less often.
      same: tasks with equal rates.
      difference: mean pass rate of the second less that of the first.
      p_value: probability of so uneven a split of better and worse, or a more uneven one, between equal systems.
    """

    better: int
    worse: int
    same: int
    difference: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether equal systems would show this less than once in twenty times."""
        return self.p_value < SIGNIFICANT


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Returns the probability that of k samples, drawn without replacement, at least one passes: 1 - C(n-c,k)/C(n,k).

    Args:
      samples: n, how many there are.
      passed: c, how many of them pass.
      k: how many are drawn, at most `samples`.

    Raises:
      ValueError: k is above n, where the formula would claim certainty that nobody measured.
    """
    if not 0 <= passed <= samples or not 0 < k <= samples:
        raise ValueError(f"pass@{k} of {passed} passed among {samples} samples is not defined; 1 <= k <= n is needed")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of per-task values in [0, 1] with Wilson's 95% interval."""
    count = len(values)
    mean = math.fsum(values) / count
    z2 = _NORMAL_97_5**2
    centre = (mean + z2 / (2 * count)) / (1 + z2 / count)
    half = _NORMAL_97_5 * math.sqrt(mean * (1 - mean) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Estimate(mean, max(0.0, centre - half), min(1.0, centre + half))


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Returns how the pass rates of two systems, by task id over the same tasks, differ."""
    differences = [second[task_id] - rate for task_id, rate in first.items()]
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    return Comparison(
        better,
        worse,
        len(differences) - better - worse,
        math.fsum(differences) / len(differences),
        sign_test(better, worse),
    )


def sign_test(better: int, worse: int) -> float:
    """Returns the two-sided exact p-value of a split of fair coin tosses; 1.0 if nothing was tossed."""
    tosses = better + worse
    tail = sum(math.comb(tosses, heads) for heads in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**tosses)
