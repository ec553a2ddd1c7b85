"""The story of a run's starts and ends: `history.jsonl` in its folder, one line each, never rewritten.

A start says when, where, with which versions and state of the source; a begin, after which step; an end, why, with
which exit code, after which step. A start without an end was killed. `jaxwiz status` reads it; nothing depends on it.
"""

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jaxwiz
from jaxwiz import console, files
from jaxwiz.exit_codes import FAILED
from jaxwiz.sharding.processes import Processes

FILE = "history.jsonl"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class History:
    """Writes the line of this start's end, whichever way it comes but by SIGKILL; process 0's alone.

    Attributes:
      step: steps done, as far as known here; kept by the loop.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.step: int | None = None
        self._path = folder / FILE
        self._processes = processes
        self._lock = threading.Lock()
        self._ended = not processes.is_first

    def __enter__(self) -> "History":
        if self._processes.is_first:
            self._append({"event": "start", **_here(), "processes": self._processes.count, **software()})
            self._processes.at_end = self.end
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end("finished", 0)
        else:
            is_users = isinstance(error, files.UserError)
            code = error.exit_code if isinstance(error, files.UserError) else FAILED
            said = str(error) if is_users else f"{type(error).__name__}: {error}"
            self.end(said[:2000], code)

    def begin(self, step: int) -> None:
        """Notes after which step training begins."""
        self.step = step
        if self._processes.is_first:
            self._append({"event": "begin", "time": round(time.time(), 1), "step": step})

    def end(self, reason: str, code: int) -> None:
        """Notes why this process ends, once."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._append({"event": "end", **_here(), "step": self.step, "exit_code": code, "reason": reason})

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk is no reason to end, and must not hide the reason of an end
            console.warn(f"train: {self._path} lacks a line: {error}")


def software() -> dict[str, Any]:
    """Returns versions, and the commit of the source tree where jaxwiz runs from a checkout, None elsewhere."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    versions |= {"jaxwiz": jaxwiz.__version__, "python": platform.python_version()}
    return {"versions": versions, "git": git_state(Path(jaxwiz.__file__).parent)}


def git_state(source: Path) -> dict[str, Any] | None:
    """Returns commit and changed files of the checkout that tracks `source`, None where there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        if not git("ls-files", "__init__.py").strip():
            return None
        changed = [line[3:] for line in git("status", "--porcelain", "--", ".").splitlines()]
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": changed[:50]}
    except (OSError, subprocess.SubprocessError):
        return None


def _here() -> dict[str, Any]:
    return {"time": round(time.time(), 1), "host": socket.gethostname(), "pid": os.getpid()}
