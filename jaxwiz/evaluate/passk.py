"""The numbers of one system: pass@k without bias, and how far another draw of tasks could move it.

The interval is a bootstrap over tasks, bias-corrected and accelerated (BCa; Efron 1987, "Better Bootstrap Confidence
Intervals"): tasks are drawn anew, with all their samples, 10,000 times. Drawing whole tasks carries both kinds of
chance, that of tasks and that of samples within a task. The draws are seeded: equal values give an equal interval.

A bootstrap cannot see what it has not drawn: where all tasks fail, it would claim to be certain. So where less than
five tasks' worth of passes or of failures was seen, Wilson's score interval stands in, a task counting as one trial; it
errs on the wide side, since no values between 0 and 1 of a given mean vary more than hits and misses do. Each interval
names its method. tests/evaluate/test_passk.py holds how often they cover the truth.
"""

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 10_000
SEED = 20230614  # any fixed number
FEWEST_TASKS = 5.0
_NORMAL = NormalDist()
_NORMAL_97_5 = _NORMAL.inv_cdf(0.975)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over tasks and its 95% interval.

    Attributes:
      value: the mean.
      low: the interval's lower end.
      high: its upper end.
      method: "bootstrap" or "wilson", see above.
    """

    value: float
    low: float
    high: float
    method: str


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Returns the probability that of k samples, drawn without replacement, at least one passes: 1 - C(n-c,k)/C(n,k).

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.

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
    """Returns the mean of per-task values in [0, 1] with its 95% interval."""
    total = math.fsum(values)
    mean = total / len(values)
    if min(total, len(values) - total) < FEWEST_TASKS or max(values) == min(values):
        return Estimate(mean, *_wilson(mean, len(values)), "wilson")
    low, high = bootstrap_interval(values)
    return Estimate(mean, low, high, "bootstrap")


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95% BCa interval of the mean of `values`, not all of which may be equal."""
    tasks = np.asarray(values, dtype=np.float64)
    mean = tasks.mean()
    # Which tasks were drawn matters less than how often each distinct value was: the same draws, much faster.
    distinct, counts = np.unique(tasks, return_counts=True)
    drawn = np.random.default_rng(SEED).multinomial(len(tasks), counts / len(tasks), size=RESAMPLES)
    means = np.sort(drawn @ distinct / len(tasks))
    rounding = 1e-12
    below, at_most = np.searchsorted(means, [mean - rounding, mean + rounding]) / RESAMPLES
    bias = _NORMAL.inv_cdf((below + at_most) / 2)  # draws equal to the mean count half
    influence = tasks - mean  # of each task on the mean, up to a factor that cancels: what the jackknife gives
    skewness = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)

    def quantile(normal: float) -> float:
        shifted = bias + (bias + normal) / (1 - skewness * (bias + normal))
        return float(np.quantile(means, _NORMAL.cdf(shifted)))

    return quantile(-_NORMAL_97_5), quantile(_NORMAL_97_5)


def _wilson(mean: float, count: int) -> tuple[float, float]:
    z2 = _NORMAL_97_5**2
    centre = (mean + z2 / (2 * count)) / (1 + z2 / count)
    half = _NORMAL_97_5 * math.sqrt(mean * (1 - mean) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return 0.0 if mean == 0.0 else centre - half, 1.0 if mean == 1.0 else centre + half
