"""What the train stage measured, as far as its summary.json says; shown beside the scores that it led to."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError


@dataclasses.dataclass(frozen=True)
class Training:
    """What the train stage's summary.json says; a value that it lacks is None, a curve that it lacks is empty.

    Attributes:
      heldout_loss: mean loss a token on held-out answers, by "before" and "after".
      curve: (step, training loss) points.
      heldout_curve: (step, held-out loss) points.
      facts: other numbers, such as steps, train_tokens, tokens_per_s and mfu.
    """

    heldout_loss: Mapping[str, float | None]
    curve: tuple[tuple[float, float], ...]
    heldout_curve: tuple[tuple[float, float], ...]
    facts: Mapping[str, float]


def read_training(path: Path) -> Training:
    """Returns the train stage's summary.

    Raises:
      UserError: the file is not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"training = '{path}': cannot read the summary ({error}); give train's summary.json") from None
    if not isinstance(data, dict):
        raise UserError(f"training = '{path}': holds {type(data).__name__}, not an object; give train's summary.json")
    return Training(
        heldout_loss={moment: _number(data.get(f"heldout_loss_{moment}")) for moment in ("before", "after")},
        curve=_points(data.get("curve")),
        heldout_curve=_points(data.get("heldout_curve")),
        facts={
            key: number
            for key, value in data.items()
            if not key.startswith("heldout_loss") and (number := _number(value)) is not None
        },
    )


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _points(value: Any) -> tuple[tuple[float, float], ...]:
    """Returns the finite (step, value) pairs of a list, leaving out what is none, such as a loss of NaN."""
    pairs = value if isinstance(value, list) else []
    return tuple(
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(_number(part) is not None for part in pair)
    )
