"""What the user sees while work is going on: messages on stderr, and progress for a terminal and for a log.

In a terminal, `progress` draws a bar; elsewhere (CI, a pod's log) it prints a line every few seconds, so that a log
tells how far the work is without thousands of redrawn bars. stdout is left to results.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BETWEEN_LOG_LINES = 10.0


def say(message: str) -> None:
    """Prints one message to stderr at once."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Prints one warning to stderr at once."""
    say(f"warning: {message}")


class Advance(Protocol):
    """Reports finished units of work."""

    def __call__(self, units: int = 1, note: str = "") -> None:
        """Adds `units` finished units and replaces the note shown beside the bar."""


@contextmanager
def progress(title: str, total: int, unit: str = "items", start: int = 0) -> Iterator[Advance]:
    """Yields a function that advances a bar (terminal) or a line every 10 s (log).

    Args:
      title: what is being done, for instance "train".
      total: units of work in all, those already done included.
      unit: what is counted, for instance "steps".
      start: units already done by an earlier, interrupted run.
    """
    if sys.stderr.isatty():
        yield from _terminal_bar(title, total, unit, start)
    else:
        yield from _log_lines(title, total, unit, start)


def _terminal_bar(title: str, total: int, unit: str, start: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=start, note="")

        def advance(units: int = 1, note: str = "") -> None:
            bar.update(task, advance=units, note=note)

        yield advance


def _log_lines(title: str, total: int, unit: str, start: int) -> Iterator[Advance]:
    began = last_line = time.monotonic()
    done = start

    def advance(units: int = 1, note: str = "") -> None:
        nonlocal done, last_line
        done += units
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LOG_LINES or (units and done >= total):
            last_line = now
            elapsed = now - began
            remaining = elapsed * (total - done) / max(done - start, 1)
            say(f"{title}: {done}/{total} {unit}, {elapsed:.0f} s, eta {remaining:.0f} s {note}".rstrip())

    say(f"{title}: {start}/{total} {unit}")
    yield advance
