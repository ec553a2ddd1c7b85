"""A thread that sees when a step takes too long, and tells how far the run is.

    watchdog.step(17)                  step 17 begins, and the one before it is done
    watchdog.doing("the devices")      what the loop waits for, for the message
    with watchdog.untimed("saving"):   compiling, evaluating, saving: as long as it takes

A step that exceeds its limit is a step without end: a feed that hangs, a device, or another process that never comes to
the same collective. Each process notes the stacks of all its threads in its log; the one that noticed first names
itself, the step and what it waits for, and all processes end with exit code HUNG. One that waits for the devices gives
the others a moment to speak first: it may only wait for them.

The thread needs the interpreter. Should another thread hold that for good, faulthandler's own thread ends the process.
Beside that it writes `progress.json` every few seconds (process 0): where the run is now, for `jaxwiz status`.
"""

import collections
import contextlib
import faulthandler
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from jaxwiz import files
from jaxwiz.exit_codes import HUNG
from jaxwiz.sharding.processes import Processes, note_stacks

PROGRESS_FILE = "progress.json"
PROGRESS_EVERY_S = 5.0
DEVICES = "the devices"
_POLL_S = 0.5
_COURTESY_S = 5.0  # in which a process speaks that knows more than that it waits for the devices
_LEAST_LIMIT_S = 120.0
_TIMES_MEDIAN = 20.0
_FEWEST = 5  # steps before their median counts
_FIRST_LIMIT_S = 1800.0  # until then: the first step of a large job opens connections and files
_HELD_S = 300.0  # beyond a step's limit, in which no thread of Python came to run


class Watchdog:
    """Watches from `with` on."""

    def __init__(
        self,
        limit_s: float | Literal["auto"] | None,
        processes: Processes,
        log: Path,
        progress: Callable[[], dict[str, Any]],
        progress_path: Path | None,
    ) -> None:
        """Begins untimed.

        Args:
          limit_s: of a step; "auto": by the median of the last hundred; None: none.
          processes: of the job.
          log: of this process, where stacks go.
          progress: what `progress_path` says beside the time, step and what is done.
          progress_path: the file; None: none.
        """
        self._limit_s = limit_s
        self._processes = processes
        self._log = log
        self._progress = progress
        self._progress_path = progress_path
        self._durations: collections.deque[float] = collections.deque(maxlen=100)
        self._step = 0
        self._doing = "preparing"
        self._since: float | None = None  # None: untimed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._held_log = open(self._log, "a", encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._held_log.close()

    def step(self, step: int) -> None:
        """A step begins: the loop goes for its batch."""
        now = time.monotonic()
        if self._since is not None:
            self._durations.append(now - self._since)
        self._step, self._doing, self._since = step, "its batch", now

    def doing(self, what: str) -> None:
        """Says what the loop waits for from now on."""
        self._doing = what

    @contextlib.contextmanager
    def untimed(self, what: str) -> Iterator[None]:
        """Does not time what is done within; the step that follows is timed from its begin."""
        self._since, self._doing = None, what
        yield
        self._since = None

    def limit_s(self) -> float | None:
        """Returns how long a step may take now."""
        if self._limit_s != "auto":
            return self._limit_s
        if len(self._durations) < _FEWEST:
            return _FIRST_LIMIT_S
        return max(_LEAST_LIMIT_S, _TIMES_MEDIAN * statistics.median(tuple(self._durations)))

    def _watch(self) -> None:
        told_at = 0.0
        while not self._stop.wait(_POLL_S):
            self._require_in_time()
            if self._progress_path is not None and time.monotonic() - told_at >= PROGRESS_EVERY_S:
                told_at = time.monotonic()
                self._tell(self._progress_path)

    def _require_in_time(self) -> None:
        since, step, doing, limit = self._since, self._step, self._doing, self.limit_s()
        if since is None or limit is None:
            faulthandler.cancel_dump_traceback_later()
            return
        faulthandler.dump_traceback_later(limit + _HELD_S, exit=True, file=self._held_log)
        courtesy = _COURTESY_S if doing.startswith(DEVICES) and self._processes.count > 1 else 0.0
        took = time.monotonic() - since
        if took <= limit + courtesy or self._since != since:
            return
        note_stacks(self._log)
        self._processes.end_all(
            f"hangs in step {step}: it has taken {took:.3g} s, more than {limit:.3g} s "
            f"(intervals.faults.step_limit_s = {self._limit_s}), and waits for {doing}; stacks in {self._log.parent}",
            HUNG,
            stacks=True,
        )

    def _tell(self, path: Path) -> None:
        progress = {"time": round(time.time(), 1), "step": self._step, "doing": self._doing, **self._progress()}
        with contextlib.suppress(OSError):  # a full disk is told by who saves
            files.write_text(path, json.dumps(progress) + "\n")
