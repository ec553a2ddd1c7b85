"""Lays out a loss curve: from (step, loss) points to coordinates that an SVG template draws as they are."""

import dataclasses
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 34  # room for axis labels

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in pixels and its label."""

    position: float
    label: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """A laid-out chart.

    Attributes:
      width, height, left, right, top, bottom: the picture, and the edges of the plot in it, in pixels.
      steps: marks along the horizontal axis.
      losses: marks along the vertical axis.
      training: "x,y x,y ..." of the training loss; empty if there is none.
      heldout: "x,y x,y ..." of the held-out loss; empty if there is none.
      heldout_dots: its points one by one, since it may have only one or two.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    steps: tuple[Tick, ...]
    losses: tuple[Tick, ...]
    training: str
    heldout: str
    heldout_dots: tuple[tuple[float, float], ...]


def lay_out_curve(training: Points, heldout: Points) -> Curve | None:
    """Returns the chart of a training and a held-out loss; None if there is nothing to draw.

    Args:
      training: (step, loss) points.
      heldout: (step, loss) points.
    """
    points = [*training, *heldout]
    if not points:
        return None
    step_marks = _round_marks(min(x for x, _ in points), max(x for x, _ in points), 8)
    loss_marks = _round_marks(min(y for _, y in points), max(y for _, y in points), 5)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x_of(step: float) -> float:
        return round(LEFT + (step - step_marks[0]) / (step_marks[-1] - step_marks[0]) * (right - LEFT), 1)

    def y_of(loss: float) -> float:
        return round(bottom - (loss - loss_marks[0]) / (loss_marks[-1] - loss_marks[0]) * (bottom - TOP), 1)

    def line(series: Points) -> str:
        return " ".join(f"{x_of(step)},{y_of(loss)}" for step, loss in series)

    return Curve(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        steps=tuple(Tick(x_of(mark), f"{mark:g}") for mark in step_marks),
        losses=tuple(Tick(y_of(mark), f"{mark:.4g}") for mark in loss_marks),
        training=line(training),
        heldout=line(heldout),
        heldout_dots=tuple((x_of(step), y_of(loss)) for step, loss in heldout),
    )


def _round_marks(low: float, high: float, most: int) -> list[float]:
    """Returns evenly spaced round numbers (1, 2 or 5 times a power of ten apart) that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    spacing = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first, last = math.floor(low / spacing), math.ceil(high / spacing)
    return [round(spacing * index, 12) for index in range(first, max(last, first + 1) + 1)]
