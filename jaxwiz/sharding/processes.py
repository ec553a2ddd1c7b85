"""The processes of a job, from the inside: who this one is, values from all of them, and an orderly end for each.

`join` comes before anything else a process does: the earlier the others know it, the more of its faults they can be
told. From then on a process that fails says so to the others, one that is killed is missed (`sharding/watcher.py`), and
nobody waits for it in vain. What is exchanged here is text between hosts; arrays are XLA's business.
"""

import contextlib
import faulthandler
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jaxwiz import console
from jaxwiz.exit_codes import FAILED
from jaxwiz.files import UserError
from jaxwiz.sharding.launch import Launch, LaunchError, find_launch
from jaxwiz.sharding.watcher import LOST_AFTER_S, Line

JOIN_TIMEOUT_S = 300.0
_VERDICT_S = 15.0  # until the verdict that a process has asked for


class Processes:
    """All processes of a job; this one alone unless `join` found others.

    Attributes:
      index: of this process, from 0; process 0 writes what is written once and speaks to the user.
      count: how many there are.
      source: what said so, for people.
      at_end: called with the reason and the exit code before this process is ended from another thread.
    """

    def __init__(self, index: int = 0, count: int = 1, source: str = "no launcher") -> None:
        self.index = index
        self.count = count
        self.source = source
        self.at_end: Callable[[str, int], None] = lambda reason, code: None

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def gather(self, value: str) -> list[str]:
        """Returns the values of all processes, in their order; each process has to call it, and waits for the others.

        Args:
          value: this process's own; short, since everybody gets all of them.
        """
        return [value]

    def of_first(self, value: str) -> str:
        """Returns the value that process 0 gave; those of the others are ignored."""
        return self.gather(value if self.is_first else "")[0]

    def log_beside(self, path: Path) -> None:
        """Names the file in which the loss of another process is noted, besides stderr."""

    def fail(self, error: BaseException, code: int) -> None:
        """Tells the others why this process ends and ends it; returns, to end as usual, where it is alone.

        Args:
          error: what ends it, already told to the user if it is a `UserError`.
          code: the exit code.
        """

    def leave(self) -> None:
        """Waits until all are done, and parts from them."""

    def end_all(self, reason: str, code: int, stacks: bool = False) -> NoReturn:
        """Ends all processes of the job with one exit code; may be called in any thread.

        Args:
          reason: what this process has come to, for people: "process 1 of 2 ..." goes before it.
          code: the exit code.
          stacks: the other processes note the stacks of their threads in their logs before.
        """
        console.say(f"jaxwiz: this process {reason}")
        self.end_now(reason, code)

    def end_now(self, reason: str, code: int) -> NoReturn:
        """Ends this process from whichever thread; others miss it."""
        self.at_end(reason, code)
        _exit_now(code)


class _Joined(Processes):
    """A process that has others beside it, spoken to through its watcher."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch.index, launch.count, launch.source)
        here, there = socket.socketpair()
        arguments = [str(launch.index), str(launch.count), launch.coordinator, str(JOIN_TIMEOUT_S)]
        with there:
            self._watcher = subprocess.Popen(
                [sys.executable, "-m", "jaxwiz.sharding.watcher", *arguments, str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._link = Line(here)
        self._gathered: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._left = False
        self._log: Path | None = None
        threading.Thread(target=self._listen, name="watcher", daemon=True).start()

    def gather(self, value: str) -> list[str]:
        self._link.send(value=value)
        return self._gathered.get()  # if one is lost meanwhile, this process ends in `_listen`

    def log_beside(self, path: Path) -> None:
        self._log = path
        self._link.send(log=str(path))

    def end_all(self, reason: str, code: int, stacks: bool = False) -> NoReturn:
        console.say(f"jaxwiz: this process {reason}")
        self._link.send(ended=reason, code=code, stacks=stacks)
        time.sleep(_VERDICT_S)  # the verdict ends this process as it ends the others, in `_listen`
        self.end_now(reason, code)

    def fail(self, error: BaseException, code: int) -> None:
        if self._left:
            return
        if not isinstance(error, UserError | OSError | KeyboardInterrupt):
            if _may_come_from_others(error):
                time.sleep(LOST_AFTER_S + 5)  # a loss that explains it ends this process meanwhile
            traceback.print_exception(error)
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self._link.send(ended=f"failed: {said[:2000]}")
        _exit_now(code)

    def leave(self) -> None:
        self.gather("done")
        self._left = True
        self._link.send(left=True)
        if "jax" in sys.modules:
            sys.modules["jax"].distributed.shutdown()

    def _listen(self) -> None:
        for message in self._link.messages():
            if "gathered" in message:
                self._gathered.put(message["gathered"])
            elif "say" in message:
                console.say(message["say"])
            elif "verdict" in message:  # the watcher has told it
                if message.get("stacks") and self._log is not None:
                    note_stacks(self._log)
                self.end_now(message["verdict"], message.get("code", FAILED))
        if not self._left:
            console.say("jaxwiz: the watcher of this process is gone; without it a lost process would not be noticed")
            _exit_now(FAILED)


_current = Processes()


def current() -> Processes:
    """Returns the processes of this job, as `join` found them."""
    return _current


def meet(launch: Launch) -> Processes:
    """Returns the processes of a job of several, which can talk from now on; `join` does this and more."""
    global _current
    _current = _Joined(launch)
    return _current


def join(launch: Launch | None = None) -> Processes:
    """Returns the processes of this job, once all of them are there and JAX knows them; before any use of JAX.

    Args:
      launch: how this process was started; None: as the environment says.

    Raises:
      LaunchError: the environment contradicts itself, or the devices.
    """
    global _current
    launch = launch or find_launch(os.environ)
    if launch is None:
        return _current
    if launch.count == 1:
        _current = Processes(source=launch.source)
        return _current
    processes = meet(launch)
    # JAX's own meeting point is beside ours, on a port that is free just now.
    port = processes.of_first(str(_free_port()))
    import jax

    jax.config.update("jax_enable_preemption_service", True)  # `train/stopping.py` asks it, and hands it signals
    host = launch.coordinator.rsplit(":", 1)[0]
    jax.distributed.initialize(
        f"{host}:{port}",
        launch.count,
        launch.index,
        launch.local_device_ids,
        cluster_detection_method="deactivate",  # it would fill in local_device_ids by its own rules
        initialization_timeout=int(JOIN_TIMEOUT_S),
    )
    if (jax.process_index(), jax.process_count()) != (launch.index, launch.count):
        raise LaunchError(
            f"{launch.source}: process {launch.index} of {launch.count}, but the devices' runtime says "
            f"{jax.process_index()} of {jax.process_count()}; give JAXWIZ_PROCESSES and JAXWIZ_PROCESS_ID as it does"
        )
    if processes.is_first:
        console.say(f"{processes.count} processes, launched by {processes.source}")
    return processes


def note_stacks(log: Path) -> None:
    """Appends what every thread of this process is doing to a log."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} stacks of all threads of pid {os.getpid()}:\n")
        file.flush()
        faulthandler.dump_traceback(file)


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def _may_come_from_others(error: BaseException) -> bool:
    """Says whether an error may be what the loss of another process looks like: XLA's, and its ValueError of Gloo."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError) and "Gloo" in str(error))


def _exit_now(code: int) -> NoReturn:
    """Ends the process without the usual clean-up: JAX's would wait for processes that are gone."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
