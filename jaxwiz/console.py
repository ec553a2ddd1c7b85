"""What the user sees while work is going on: messages on stderr, and progress for a terminal and for a log.

In a terminal, `progress` draws a bar; elsewhere (CI, a pod's log) it prints a line every few seconds, so that a log
tells how far the work is without thousands of redrawn bars. stdout is left to results. Where several processes do one
thing, all but the first speak to a log file only: `logged_to`.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Protocol

SECONDS_BETWEEN_LOG_LINES = 10.0


_log: IO[str] | None = None
_on_console = True


def say(message: str) -> None:
    """Prints one message to stderr at once, and notes it in this process's log file if there is one."""
    if _on_console:
        print(message, file=sys.stderr, flush=True)
    if _log is not None:
        _note(_log, message)


def _note(log: IO[str], message: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, file=log, flush=True)


@contextmanager
def logged_to(path: Path, on_console: bool = True) -> Iterator[None]:
    """Notes all messages in a file, too, at its end if it exists, and the error that ends the context if one does.

    Args:
      path: the file; its folder is made.
      on_console: false: whatever this process prints, libraries included, goes to the file only.
    """
    global _log, _on_console
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as log, nullcontext() if on_console else _all_output_to(log):
        _log, _on_console = log, on_console
        try:
            yield
        except BaseException as error:
            _note(log, f"ended by {type(error).__name__}: {error}")
            raise
        finally:
            _log, _on_console = None, True


@contextmanager
def _all_output_to(file: IO[str]) -> Iterator[None]:
    """Turns stdout and stderr of the process, not only of Python, to a file."""
    console = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in console:
            os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in console.items():
            os.dup2(saved, number)
            os.close(saved)


def warn(message: str) -> None:
    """Prints one warning to stderr at once."""
    say(f"warning: {message}")


class Advance(Protocol):
    """Reports finished units of work."""

    def __call__(self, units: int = 1, note: str = "") -> None:
        """Adds `units` finished units and replaces the note shown beside the bar."""


@contextmanager
def progress(title: str, total: int | None, unit: str = "items", start: int = 0) -> Iterator[Advance]:
    """Yields a function that advances a bar (terminal) or a line every 10 s (log).

    Args:
      title: what is being done, for instance "train".
      total: units of work in all, those already done included; None if nobody knows.
      unit: what is counted, for instance "steps".
      start: units already done by an earlier, interrupted run.
    """
    if _on_console and sys.stderr.isatty():
        yield from _terminal_bar(title, total, unit, start)
    else:
        yield from _log_lines(title, total, unit, start)


def _terminal_bar(title: str, total: int | None, unit: str, start: int) -> Iterator[Advance]:
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


def _log_lines(title: str, total: int | None, unit: str, start: int) -> Iterator[Advance]:
    began = last_line = time.monotonic()
    done = start

    def advance(units: int = 1, note: str = "") -> None:
        nonlocal done, last_line
        done += units
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LOG_LINES or (units and total is not None and done >= total):
            last_line = now
            elapsed = now - began
            if total is None:
                say(f"{title}: {done} {unit}, {elapsed:.0f} s {note}".rstrip())
            else:
                remaining = elapsed * (total - done) / max(done - start, 1)
                say(f"{title}: {done}/{total} {unit}, {elapsed:.0f} s, eta {remaining:.0f} s {note}".rstrip())

    say(f"{title}: {start} {unit}" if total is None else f"{title}: {start}/{total} {unit}")
    yield advance
