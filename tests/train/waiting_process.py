"""Run by tests in a process of its own: what stands around a training loop, around a loop that only waits.

    python -m tests.train.waiting_process FOLDER stop|early|hang SECONDS

Prints "ready" when signals are answered, and then "stops" once it was told to.
"""

import sys
import time
from pathlib import Path

from jaxwiz.files import UserError
from jaxwiz.sharding.processes import Processes
from jaxwiz.train.history import History
from jaxwiz.train.stopping import StopSignals
from jaxwiz.train.watchdog import Watchdog


def wait_to_be_told(stopping: StopSignals, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stopping.agreed():
            print("stops", flush=True)
            time.sleep(seconds)  # as a save takes its time
            raise stopping.stopped("saved after step 7")
        time.sleep(0.01)


def hang(processes: Processes, folder: Path, seconds: float) -> None:
    with Watchdog(0.5, processes, folder / "process.log", lambda: {"steps": 9}, folder / "progress.json") as watchdog:
        with watchdog.untimed("compiling"):
            time.sleep(1.2)  # longer than a step may take
        watchdog.step(8)
        time.sleep(0.1)
        watchdog.step(9)
        wait_for_what_never_comes(seconds)


def wait_for_what_never_comes(seconds: float) -> None:
    time.sleep(seconds)


def main(folder: Path, what: str, seconds: float) -> int:
    processes = Processes()
    try:
        with History(folder, processes) as history, StopSignals(processes) as stopping:
            print("listens", flush=True)
            if what == "early":
                time.sleep(seconds)
            stopping.steps_begin()
            history.begin(7)
            print("ready", flush=True)
            if what == "hang":
                hang(processes, folder, seconds)
            wait_to_be_told(stopping, seconds)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
