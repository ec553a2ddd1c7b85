"""Run by tests in a process of its own: the train stage, killed with SIGKILL when a step's metrics are written.

python -m tests.train.killed_run CONFIG.yaml [STEP]    without STEP it runs to its end
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from jaxwiz.config import load_config
from jaxwiz.train import loop
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.metrics import MetricsLog
from jaxwiz.train.run import run


class DeadlyLog(MetricsLog):
    """Kills the process right after the line of one step."""

    step_of_death = -1
    awaited_state: Path | None = None

    def write_step(self, step: int, values: Mapping[str, float], timings: Mapping[str, float]) -> None:
        super().write_step(step, values, timings)
        if step == self.step_of_death:
            while self.awaited_state is not None and not self.awaited_state.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]), TrainConfig)
    if len(sys.argv) > 2:
        DeadlyLog.step_of_death = int(sys.argv[2])
        loop.MetricsLog = DeadlyLog  # type: ignore[misc]
    if len(sys.argv) > 3:
        DeadlyLog.awaited_state = config.out / "state" / sys.argv[3]
    run(config)
