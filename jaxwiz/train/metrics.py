"""What a run measured, step by step: `metrics.jsonl` for programs, TensorBoard events for eyes.

`metrics.jsonl` holds nothing but reproducible values, one line a step and one a held-out evaluation, so an interrupted
and continued run ends with the same bytes as an uninterrupted one. Timings go to TensorBoard and the summary only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxwiz import files


class MetricsLog:
    """Appends to a run's metrics, after dropping what lies beyond the step that the run continues from."""

    def __init__(self, folder: Path, step: int | None, tensorboard_every_steps: int = 1) -> None:
        """Opens the log.

        Args:
          folder: the run's folder; `metrics.jsonl` and `tensorboard/` lie in it.
          step: the step that was restored; later lines are dropped. None: a fresh run, all lines are dropped.
          tensorboard_every_steps: steps between points of the training curves in TensorBoard.
        """
        from tensorboardX import SummaryWriter

        self._path = folder / "metrics.jsonl"
        self._every = tensorboard_every_steps
        files.write_text(self._path, "".join(_to_line(line) for line in kept_lines(folder, step)))
        self._file = open(self._path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (open as long as the log)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=0 if step is None else step + 1)

    def write_step(self, step: int, values: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Records a training step; `timings` appear in TensorBoard only, and what is no number does not."""
        self._append({"step": step, **values})
        if step % self._every == 0:
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            self._add_scalars("train", step, {**numbers, **timings})

    def write_heldout(self, step: int, loss: float, loss_tokens: int) -> None:
        """Records the mean loss (nats) over the held-out split's `loss_tokens` targets, after `step` steps."""
        self._append({"step": step, "heldout_loss": loss, "heldout_loss_tokens": loss_tokens})
        self._add_scalars("heldout", step, {"loss": loss})

    def write_benchmark(self, step: int, scores: Mapping[str, float]) -> None:
        """Records scores of the benchmark, shares of its tasks by name, after `step` steps."""
        self._append({"step": step, "benchmark": dict(scores)})
        self._add_scalars("benchmark", step, scores)

    def close(self) -> None:
        """Writes everything out."""
        self._file.close()
        self._tensorboard.close()

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(_to_line(line))
        self._file.flush()  # a killed process loses nothing that precedes its last checkpoint

    def _add_scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{group}/{name}", value, step)


class SilentLog:
    """Stands in for the log in processes that write none: all have the same metrics, and process 0 writes them."""

    def write_step(self, step: int, values: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Does nothing."""

    def write_heldout(self, step: int, loss: float, loss_tokens: int) -> None:
        """Does nothing."""

    def write_benchmark(self, step: int, scores: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def kept_lines(folder: Path, step: int | None) -> list[dict[str, Any]]:
    """Returns the lines that a run which continues after `step` keeps, none if it begins anew (None)."""
    return [line for line in read_metrics(folder / "metrics.jsonl") if step is not None and line["step"] <= step]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`, none if it does not exist; a last line cut short by a kill is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _to_line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
