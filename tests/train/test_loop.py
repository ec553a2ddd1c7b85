"""The loop keeps the devices supplied: it reads the metrics of a step when later ones are already dispatched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.train import loop
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, TrainConfig
from jaxwiz.train.job import TrainJob
from jaxwiz.train.metrics import MetricsLog


def test_metrics_are_read_when_two_more_steps_are_under_way_but_where_something_is_due(
    tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    compiled_train_step = TrainJob.compiled_train_step

    def recorded_step(job: TrainJob) -> Any:
        step = compiled_train_step(job)

        def dispatch(*arguments: Any) -> Any:
            events.append(f"dispatch {sum(event.startswith('dispatch') for event in events) + 1}")
            return step(*arguments)

        return dispatch

    class RecordedLog(MetricsLog):
        def write_step(self, step: int, values: Mapping[str, float], timings: Mapping[str, float]) -> None:
            events.append(f"write {step}")
            super().write_step(step, values, timings)

    monkeypatch.setattr(TrainJob, "compiled_train_step", recorded_step)
    monkeypatch.setattr(loop, "MetricsLog", RecordedLog)
    config = TrainConfig(
        out=tmp_path / "out",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        batch=BatchConfig(rows=2),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=8,
        intervals=IntervalsConfig(checkpoint_steps=5),
    )
    train_stage.run(config)
    assert events == [
        *("dispatch 1", "dispatch 2", "dispatch 3", "write 1", "dispatch 4", "write 2"),
        *(
            "dispatch 5",
            "write 3",
            "write 4",
            "write 5",
        ),  # a checkpoint: none before its metrics are known to be finite
        *("dispatch 6", "dispatch 7", "dispatch 8", "write 6", "write 7", "write 8"),
    ]
