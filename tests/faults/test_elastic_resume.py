"""A run goes on with other numbers of devices and processes: the same tokens, losses as alike as float32 allows."""

import dataclasses
import signal
from pathlib import Path

import pytest

from jaxwiz.train.metrics import read_metrics
from tests.faults.lives import a_config, batches, live, live_by_two, write_result

pytestmark = pytest.mark.faults


def test_a_run_goes_on_with_other_numbers_of_devices_as_if_nothing_had_been(
    tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """8 devices, 4, 2, 1, two processes of two, and 8 again; each life but the last is killed once it has saved."""
    whole = a_config(tmp_path / "whole", tiny_dataset, tiny_checkpoint, steps=14, rows=8)
    moved = dataclasses.replace(whole, out=tmp_path / "moved")
    done = live(whole)
    assert done.returncode == 0, done.stderr
    for devices in (8, 4, 2, 1):
        died = live(moved, "committed", 1, 0, devices=devices)
        assert died.returncode == -signal.SIGKILL and f"compiling for {devices} device(s)" in died.stderr, died.stderr
    first, second = live_by_two(moved, ("committed", 1, 0), ())
    assert first.returncode == -signal.SIGKILL and "process 0 of 2" in first.stderr, first.stderr
    assert second.returncode != 0 and "process 0 of 2" in second.stderr and "was lost" in second.stderr, second.stderr
    done = live(moved, devices=8)
    assert done.returncode == 0, done.stderr
    assert "DAMAGED" not in done.stderr and "continues after step 10 of 14" in done.stderr, done.stderr

    lines, expected = (read_metrics(config.out / "metrics.jsonl") for config in (moved, whole))
    largest = 0.0
    for line, expected_line in zip(lines, expected, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-4)
        largest = max(largest, abs(line.get("loss", 0.0) - expected_line.get("loss", 0.0)))
    seen, fed = batches(moved), batches(whole)
    by_two = fed.keys() - seen.keys()
    assert by_two <= {9, 10} and seen == {step: fed[step] for step in seen}  # the same rows in the same order
    result = {
        "devices": [8, 4, 2, 1, "2 processes x 2", 8],
        "steps": 14,
        "largest_difference_of_losses": largest,
        "same_tokens": True,
    }
    write_result("elastic_resume", result)
