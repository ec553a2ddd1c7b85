"""How a run is told to end, and when all of its processes do: SIGTERM, SIGINT, and notices of the platform.

    with StopSignals(processes) as stopping:
        ...                         # nothing is lost yet: a signal ends the process, and its job, at once
        stopping.steps_begin()
        ... stopping.agreed() ...   # asked by all processes at the same places; true for all at the same one

Python runs handlers of signals in its main thread only, which may be compiling, or waiting for a device. So the system
writes the signal's number into a pipe, and a thread takes it from there: the first signal asks for an orderly stop, a
second one ends the process at once.

In a job of several processes JAX's preemption service finds the place: whoever gets a notice tells the coordination
service, and the next place that no process has passed yet is agreed upon, without a word between the devices. The
service takes SIGTERM for itself when JAX starts; its handler is called from here then, for SIGINT as well. Notices that
reach it in another way, on platforms that have one, count the same.
"""

import ctypes
import os
import signal
import threading
from types import TracebackType
from typing import Any

from jaxwiz import console
from jaxwiz.exit_codes import INTERRUPTED, PREEMPTED
from jaxwiz.files import UserError
from jaxwiz.sharding.processes import Processes

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}


class StopRequestedError(UserError):
    """A run that ended in order because it was told to; its exit code says whether it wants to be run again."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopSignals:
    """Listens from `with` on; where it is not entered in the main thread, signals stay as they are."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._asked: signal.Signals | None = None
        self._steps_began = False
        self._places = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._handler_of_jax: Any = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        if self._processes.count > 1:
            self._handler_of_jax = _replaced_c_handler(signal.SIGTERM)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        threading.Thread(target=self._listen, name="stop signals", daemon=True).start()
        self._wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handlers:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup_fd)
        os.close(self._writer)  # ends the thread

    def steps_begin(self) -> None:
        """From now on a signal is answered by `agreed`, since there is something to save, or will be."""
        with self._lock:
            self._steps_began = True

    def agreed(self) -> bool:
        """Says whether all processes shall stop here; each has to ask at the same places, in the same order."""
        if self._processes.count == 1:
            return self._asked is not None
        from jax.experimental import multihost_utils

        # Places are counted, not steps: before it is asked for the first time the service believes in place 0.
        self._places += 1
        return multihost_utils.reached_preemption_sync_point(self._places)

    def stopped(self, where: str) -> StopRequestedError:
        """Returns what ends this process once `agreed` said so; called in all of them.

        Args:
          where: the run stands, for people.
        """
        names = self._processes.gather(self._asked.name if self._asked else "")
        told = [f"process {index} by {name}" for index, name in enumerate(names) if name] or ["by its platform"]
        if self._processes.count == 1:
            told = [names[0]]
        by_user = signal.SIGINT.name in names
        return StopRequestedError(
            f"told to stop ({', '.join(told)}); {where}; the same command continues from there",
            INTERRUPTED if by_user else PREEMPTED,
        )

    def _listen(self) -> None:
        while received := os.read(self._reader, 1):
            if received[0] in _SIGNALS:
                self._take(signal.Signals(received[0]))
        os.close(self._reader)

    def _take(self, number: signal.Signals) -> None:
        with self._lock:
            again, self._asked = self._asked is not None, self._asked or number
            steps_began = self._steps_began
        if again:
            console.say(f"train: {number.name} again: ends at once")
            self._processes.end_now(f"ended at once by a second signal, {number.name}", 128 + number)
        elif not steps_began:
            self._processes.end_all(f"was told to stop by {number.name} before a step was done", _CODES[number])
        else:
            console.say(f"train: {number.name}: ends once a state is saved; another signal ends it at once")
            if self._handler_of_jax is not None:
                self._handler_of_jax(number)


def _replaced_c_handler(number: signal.Signals) -> Any:
    """Returns the handler that JAX's runtime installed, which Python does not know of, as a function; None: none."""
    c_signal = ctypes.CDLL(None).signal
    c_signal.restype, c_signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    address = c_signal(number, None)  # SIG_DFL, until the caller installs its own
    if address in (None, 0, 1):  # SIG_DFL, SIG_IGN
        return None
    return ctypes.CFUNCTYPE(None, ctypes.c_int)(address)
