"""What is not right about the numbers of a step: not finite, and so left out by the devices, or a spike of the loss.

Judged when the step's metrics are read, from nothing but those of the steps before. A run that continues reads these
from its own `metrics.jsonl`, so it judges as an uninterrupted one would, and the file ends with the same bytes.
"""

import collections
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from jaxwiz import console
from jaxwiz.data.feed import Feed
from jaxwiz.files import UserError
from jaxwiz.train.config import FaultsConfig

_FEWEST = 10  # finite losses before one can be called a spike
_LEAST_SPREAD = 1e-3  # of the mean loss: below it a standard deviation says nothing
_MEASURED = ("loss", "grad_norm", "objective", "z_loss")


class TooManyBadStepsError(UserError):
    """More steps in a row without finite numbers than the config bears; names steps, rows and the last good state."""


class Anomalies:
    """The judge of one run's steps.

    Attributes:
      bad_in_a_row: steps up to the last one whose numbers were not finite.
    """

    def __init__(self, config: FaultsConfig, train_feed: Feed, history: Iterable[Mapping[str, Any]]) -> None:
        """Begins where a run stands.

        Args:
          config: what is borne.
          train_feed: says which rows a step saw.
          history: the lines of `metrics.jsonl` up to there.
        """
        self._config = config
        self._feed = train_feed
        self._losses: collections.deque[float] = collections.deque(maxlen=config.spike_window)
        self.bad_in_a_row = 0
        for line in history:
            if "skipped" in line:
                self.bad_in_a_row += 1
            elif "loss" in line:
                self.bad_in_a_row = 0
                self._losses.append(line["loss"])

    def judge(self, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is recorded of a step: its values, with "spike" or "skipped" where there is something to tell.

        Args:
          step: its number, from 1.
          values: its metrics, with "skipped", as the step returned them.
        """
        line = {name: value for name, value in values.items() if name != "skipped"}
        if not values["skipped"]:
            self.bad_in_a_row = 0
            spike = self._spike(line["loss"])
            self._losses.append(line["loss"])
            if spike is None:
                return line
            console.warn(
                f"train: step {step}: loss {line['loss']:.4f} is {spike:.1f} standard deviations above the mean of the "
                f"last {len(self._losses)} steps"
            )
            return line | {"spike": round(spike, 3)}
        self.bad_in_a_row += 1
        rows = rows_of_step(self._feed, step)
        told = {name: str(line.pop(name)) for name in _MEASURED if name in line}
        console.warn(
            f"train: step {step} is left out, {self.bad_in_a_row} in a row: "
            f"{', '.join(f'{name} = {value}' for name, value in told.items())}; its rows: {describe_rows(rows)}"
        )
        return line | {"skipped": {**told, "rows": rows}}

    def require_few(self, step: int, learning_rate: float, last_saved: int | None) -> None:
        """Returns if the run may go on after a step that was judged.

        Args:
          step: its number.
          learning_rate: the highest one, for the message.
          last_saved: step of the newest saved state.

        Raises:
          TooManyBadStepsError: too many bad steps in a row.
        """
        bad = self.bad_in_a_row
        if bad <= self._config.max_bad_steps:
            return
        where = "none was saved" if last_saved is None else f"step {last_saved}"
        raise TooManyBadStepsError(
            f"steps {step - bad + 1} to {step}: loss or gradients are not finite, {bad} step(s) in a row, and "
            f"intervals.faults.max_bad_steps = {self._config.max_bad_steps}. Lower optimizer.learning_rate (now "
            f"{learning_rate}) or raise optimizer.warmup_steps, and look at the rows of these steps, which "
            f"metrics.jsonl names; last good state: {where}"
        )

    def _spike(self, loss: float) -> float | None:
        """Returns how many standard deviations a loss lies above those before it, None if that is no spike."""
        if len(self._losses) < min(_FEWEST, max(self._config.spike_window, 2)) or not self._config.spike_window:
            return None
        mean = statistics.fmean(self._losses)
        spread = max(statistics.pstdev(self._losses, mean), _LEAST_SPREAD * abs(mean), math.ulp(1.0))
        z = (loss - mean) / spread
        return z if z >= self._config.spike_z else None


def rows_of_step(feed: Feed, step: int) -> dict[str, list[int]]:
    """Returns the rows of a step's batch by their shard: {path: numbers in it, from 0}, those of all processes."""
    rows: dict[str, list[int]] = {}
    for place in range(feed.batch_size):
        if (found := feed.locate(step - 1, place)) is not None:
            rows.setdefault(str(found[0]), []).append(found[1])
    return {path: sorted(numbers) for path, numbers in sorted(rows.items())}


def describe_rows(rows: Mapping[str, list[int]], most: int = 16) -> str:
    """Returns rows by their shard for people, at most so many of each."""
    return "; ".join(
        f"{path} {', '.join(map(str, numbers[:most]))}{f' and {len(numbers) - most} more' if numbers[most:] else ''}"
        for path, numbers in rows.items()
    )
