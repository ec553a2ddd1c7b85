"""Steps whose numbers are not finite are counted with their rows, and a loss far above those before it is flagged."""

import math
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.train.anomalies import Anomalies, TooManyBadStepsError, describe_rows
from jaxwiz.train.config import FaultsConfig

SHARDS = (Path("a.array_record"), Path("b.array_record"))


class FakeFeed:
    """A batch of three rows; the last one of step 2 is empty."""

    batch_size = 3

    def locate(self, step: int, place: int) -> tuple[Path, int] | None:
        return None if (step, place) == (1, 2) else (SHARDS[place % 2], 10 * step + 5 - place)


def a_judge(history: list[dict[str, Any]] | None = None, **config: Any) -> Anomalies:
    return Anomalies(FaultsConfig(**config), FakeFeed(), history or [])  # type: ignore[arg-type]


def good(loss: float) -> dict[str, Any]:
    return {"loss": loss, "grad_norm": 1.0, "learning_rate": 0.1, "tokens": 7, "skipped": False}


BAD = {"loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.1, "tokens": 7, "skipped": True}


def test_a_step_that_is_left_out_is_recorded_with_its_rows_and_no_number_that_json_lacks(capsys) -> None:
    judge = a_judge()
    assert judge.judge(1, BAD) == {
        "learning_rate": 0.1,
        "tokens": 7,
        "skipped": {"loss": "nan", "grad_norm": "inf", "rows": {"a.array_record": [3, 5], "b.array_record": [4]}},
    }
    said = capsys.readouterr().err
    assert "step 1 is left out, 1 in a row: loss = nan, grad_norm = inf; its rows: a.array_record 3, 5; b" in said
    assert judge.judge(2, BAD)["skipped"]["rows"] == {"a.array_record": [15], "b.array_record": [14]}
    assert judge.bad_in_a_row == 2
    assert judge.judge(3, good(2.0)) == {"loss": 2.0, "grad_norm": 1.0, "learning_rate": 0.1, "tokens": 7}
    assert judge.bad_in_a_row == 0


def test_more_in_a_row_than_borne_end_the_run_and_name_the_last_good_state() -> None:
    judge = a_judge(max_bad_steps=2)
    for step in (4, 5):
        judge.judge(step, BAD)
        judge.require_few(step, 1e-3, last_saved=3)
    judge.judge(6, BAD)
    with pytest.raises(TooManyBadStepsError, match=r"steps 4 to 6: .*3 step\(s\) in a row.*last good state: step 3"):
        judge.require_few(6, 1e-3, last_saved=3)
    with pytest.raises(TooManyBadStepsError, match="last good state: none was saved"):
        judge.require_few(6, 1e-3, last_saved=None)


def test_a_spike_stands_out_of_the_window_before_it() -> None:
    judge = a_judge(spike_window=20, spike_z=4.0)
    for step in range(1, 31):
        assert "spike" not in judge.judge(step, good(2.0 + 0.1 * (-1) ** step))
    assert "spike" not in judge.judge(31, good(2.3))  # three deviations
    assert judge.judge(32, good(3.0))["spike"] == pytest.approx(8, abs=2)
    assert "spike" not in judge.judge(33, good(0.5))  # below is no spike


def test_equal_losses_do_not_make_a_spike_of_noise_and_a_short_history_none_at_all() -> None:
    judge = a_judge(spike_window=20, spike_z=4.0)
    for step in range(1, 10):
        judge.judge(step, good(2.0))
    assert "spike" not in judge.judge(10, good(50.0)), "nine losses are too few"
    judge = a_judge(spike_window=20, spike_z=4.0)
    for step in range(1, 16):
        judge.judge(step, good(2.0))
    assert "spike" not in judge.judge(16, good(2.0 + 1e-6))
    assert "spike" not in a_judge([{"step": 1, "loss": 1.0}] * 30, spike_window=0).judge(31, good(9.0))


def test_a_run_that_continues_judges_as_one_that_was_not_interrupted() -> None:
    whole, lines = a_judge(spike_window=12), []
    for step in range(1, 14):
        lines.append({"step": step, **whole.judge(step, good(2.0 + 0.01 * step))})
    lines += [{"step": step, **whole.judge(step, BAD)} for step in (14, 15)]
    continued = a_judge([{"step": 0, "heldout_loss": 9.0}, *lines], spike_window=12)
    assert continued.bad_in_a_row == 2
    assert continued.judge(16, good(3.0)) == whole.judge(16, good(3.0))


def test_many_rows_are_told_in_short() -> None:
    assert describe_rows({"a": list(range(20))}, most=3) == "a 0, 1, 2 and 17 more"
