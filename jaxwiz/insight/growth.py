"""How rows grow from round to round: percentiles, and their places in a drawing with one column a round."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 26
MARKS = 4  # of the vertical axis, beside 0


@dataclasses.dataclass(frozen=True)
class Spread:
    """Some numbers: how many, their mean, and the 10th, 50th and 90th percentile."""

    count: int
    mean: float
    low: float
    median: float
    high: float


@dataclasses.dataclass(frozen=True)
class Column:
    """A round in the drawing.

    Attributes:
      label: below it.
      spread: what it shows.
      x: of its middle.
      low, median, high, mean: vertical places.
    """

    label: str
    spread: Spread
    x: float
    low: float
    median: float
    high: float
    mean: float


@dataclasses.dataclass(frozen=True)
class Chart:
    """A laid-out drawing of what changes by round.

    Attributes:
      title: what is shown.
      unit: of its values.
      columns: the rounds.
      line: "x,y x,y ..." through the means.
      marks: (vertical place, label) of the axis.
    """

    title: str
    unit: str
    columns: tuple[Column, ...]
    line: str
    marks: tuple[tuple[float, str], ...]


def spread_of(values: Sequence[int]) -> Spread:
    """Returns what describes `values`, of which there must be one at least; percentiles are values of theirs."""
    ordered = sorted(values)

    def percentile(share: float) -> int:
        return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]

    return Spread(len(ordered), sum(ordered) / len(ordered), percentile(0.1), percentile(0.5), percentile(0.9))


def lay_out(title: str, unit: str, by_round: Mapping[int, Sequence[int]], highest: int | None = None) -> Chart | None:
    """Returns the drawing; None if no round has a value.

    Args:
      title: what is shown.
      unit: of the values.
      by_round: the values of each round's rows; rounds without any are left out.
      highest: the end of the axis; None: what the values ask for.
    """
    spreads = {number: spread_of(values) for number, values in by_round.items() if values}
    if not spreads:
        return None
    top = highest or max(max(one.high, one.mean) for one in spreads.values()) or 1
    step = _round_step(top / MARKS)
    steps = math.ceil(top / step)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / (steps * step) * (HEIGHT - TOP - BOTTOM), 1)

    width = (WIDTH - LEFT - RIGHT) / len(spreads)
    columns = tuple(
        Column(
            label=f"round {number}" if number else "seeds",
            spread=one,
            x=round(LEFT + (place + 0.5) * width, 1),
            low=y(one.low),
            median=y(one.median),
            high=y(one.high),
            mean=y(one.mean),
        )
        for place, (number, one) in enumerate(spreads.items())
    )
    line = " ".join(f"{column.x},{column.mean}" for column in columns)
    marks = tuple((y(mark * step), f"{mark * step:,g}") for mark in range(steps + 1))
    return Chart(title, unit, columns, line, marks)


def _round_step(at_least: float) -> float:
    """Returns the smallest of 1, 2, 5, 10, 20, ... that is no less than `at_least`."""
    power = 10.0 ** max(0, math.floor(math.log10(at_least))) if at_least > 0 else 1.0
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= at_least)
