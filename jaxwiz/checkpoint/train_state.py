"""The full state of a training run on disk: parameters, optimizer state, step; by Orbax, while training goes on.

The data position is the step, so nothing else is needed to continue, on however many devices. `save` copies the state
off the devices and returns; a thread waits for Orbax's files, sums them and completes the state (`record.py`), then
removes states that need not stay. A save that fails ends no run: it is said, and the next one tries again.

Every process of a job calls everything here, at the same steps.
"""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxwiz import console
from jaxwiz.checkpoint import record
from jaxwiz.files import UserError
from jaxwiz.sharding.processes import Processes

_TIMEOUT_S = 600  # for one save, also for its processes to wait for each other


class SaveError(UserError):
    """States were due, and the last one was never saved; what was trained is intact."""

    exit_code = 1


class StateError(UserError):
    """A state that this run cannot restore."""


class TrainCheckpoints:
    """The states of one run, one folder a step.

    Attributes:
      failure: why the newest save that was tried has not succeeded; None: it has, or is under way. Set `wait` first.
      last_saved: step of the newest complete state that this object knows of.
      blocked_s: seconds that `save` has kept its caller.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: record.Retention,
        about: Mapping[str, Any] | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Names the folder; nothing is read or written yet.

        Args:
          folder: where the states lie: local, or gs://bucket/path.
          keep: which of them stay.
          about: what each one says of its run, besides step, time and metrics.
          processes: of the job; None: this one alone.
        """
        path = epath.Path(folder)
        self.folder = path if "://" in str(path) else path.absolute()
        self.failure: str | None = None
        self.last_saved: int | None = None
        self.blocked_s = 0.0
        self._keep = keep
        self._about = dict(about or {})
        self._processes = processes or Processes()
        self._thread: threading.Thread | None = None
        # Folders are made before `save` returns: Orbax's asynchronous way leaves threads waiting where that fails.
        options = ocp.options.AsyncOptions(timeout_secs=_TIMEOUT_S, create_directories_asynchronously=False)
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), async_options=options)

    def latest_intact(self) -> int | None:
        """Returns the newest complete state's step whose every file is as it was written; None if there is none.

        What is passed over is named. Damaged states are moved aside and stay on disk; unfinished saves are removed.

        Raises:
          StateError: some processes do not see what process 0 sees.
        """
        for step in self._complete_steps():
            own = record.find_damage(self._path(step), self._processes.index, self._processes.count)
            told = [
                json.loads(text) for text in self._processes.gather(json.dumps([self._path(step).exists(), own[:5]]))
            ]
            blind = [str(process) for process, (sees_it, _) in enumerate(told) if not sees_it]
            if blind:
                raise StateError(
                    f"{self._path(step)}: process 0 sees it, but process {', '.join(blind)} of {len(told)} does not; "
                    "states have to lie where all processes see them, such as gs://bucket/path or a shared disk"
                )
            faults = list(dict.fromkeys(fault for _, of_process in told for fault in of_process))
            if not faults:
                self.last_saved = step
                return step
            if self._processes.is_first:
                aside = record.move_aside(self._path(step))
                console.say(f"train: the state of step {step} is DAMAGED and passed over, moved to {aside}:")
                for fault in faults:
                    console.say(f"train:   {fault}")
            self._processes.gather("moved")
        return None

    def about(self, step: int) -> dict[str, Any]:
        """Returns what a complete state says of itself: step, saved_at, metrics, and what its run gave as `about`."""
        found = record.read_record(self._path(step))
        if found is None:
            raise StateError(f"{self._path(step)}: no complete state; name another step")
        return found

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Begins to write `state` as `step`; returns once it is safe to overwrite the arrays.

        Waits for the save before, should that still run. A fault is said and kept in `failure`, never raised.

        Args:
          step: none of a complete state.
          state: a pytree of arrays.
          metrics: what is known of the state: "heldout_loss" decides which ones are best.
        """
        began = time.perf_counter()
        self.wait()
        self.failure = f"step {step}: the save has not ended"
        fault = self._processes.of_first(self._make_folder(step) if self._processes.is_first else "")
        if fault:
            self._failed(step, fault)
        else:
            try:
                self._orbax.save(self._path(step) / "arrays", args=ocp.args.StandardSave(state))
            except Exception as error:  # tensorstore reports even a full disk as a ValueError
                self._failed(step, str(error))
            else:
                self._thread = threading.Thread(
                    target=self._complete, args=(step, dict(metrics or {})), name=f"save of step {step}"
                )
                self._thread.start()
        self.blocked_s += time.perf_counter() - began

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Returns the state of `step`.

        Args:
          step: one that exists.
          abstract_state: a pytree of `jax.ShapeDtypeStruct` with shardings: how the arrays shall lie now.

        Raises:
          StateError: it holds other arrays than asked for.
        """
        try:
            return self._orbax.restore(self._path(step) / "arrays", args=ocp.args.StandardRestore(abstract_state))
        except (ValueError, KeyError, TypeError) as error:  # as Orbax says it where trees or shapes differ
            raise StateError(
                f"{self._path(step)}: its arrays are not those of this run ({error}); the config changed what is "
                "trained: set it back, or give another out"
            ) from None

    def wait(self) -> None:
        """Returns once no save is under way; `failure` then says how the last one went."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def require_saved(self) -> None:
        """Waits for the last save, and returns if it succeeded in all processes, or none was tried.

        Raises:
          SaveError: it did not, nor did any after it.
        """
        self.wait()
        failures = [failure for failure in self._processes.gather(self.failure or "") if failure]
        if failures:
            saved = "none" if self.last_saved is None else f"of step {self.last_saved}"
            raise SaveError(
                f"the last save of the state never succeeded: {failures[0]}; newest complete state in {self.folder}: "
                f"{saved}. Make room there or mend its permissions"
            )

    def close(self) -> None:
        """Waits for a running save and frees Orbax's threads."""
        self.wait()
        self._orbax.close()

    def _path(self, step: int) -> epath.Path:
        return self.folder / str(step)

    def _complete_steps(self) -> list[int]:
        """Returns the steps of complete states, newest first, alike in all processes; removes unfinished saves."""
        steps = []
        if self._processes.is_first:
            for step, path in record.step_folders(self.folder).items():
                if record.is_complete(path):
                    steps.append(step)
                else:
                    record.remove(path)
                    console.say(f"train: the save of step {step} was cut short; removed what it left in {path}")
        return json.loads(self._processes.of_first(json.dumps(steps[::-1])))

    def _make_folder(self, step: int) -> str:
        """Returns why the state's folder cannot be made, "" if it was made."""
        try:
            self._path(step).mkdir(parents=True)
        except OSError as error:
            return f"{error}"
        return ""

    def _complete(self, step: int, metrics: dict[str, float]) -> None:
        """Waits for Orbax's files, sums and completes them; in a thread of its own."""
        try:
            self._orbax.wait_until_finished()
            record.write_checksums(self._path(step), self._processes.index)
            if self._processes.is_first:
                record.await_checksums(self._path(step), self._processes.count, _TIMEOUT_S)
                about = {"step": step, "saved_at": time.time(), "metrics": metrics, "processes": self._processes.count}
                record.complete(self._path(step), {**about, **self._about})
        except Exception as error:  # whatever it is: the run goes on without this state
            self._failed(step, str(error))
            return
        self.failure, self.last_saved = None, step
        if self._processes.is_first:
            self._remove_old()

    def _remove_old(self) -> None:
        try:
            records = record.read_records(self.folder)
            stay = self._keep.kept(records, time.time())
            for each in records:
                if each["step"] not in stay:
                    record.remove(self._path(each["step"]))
        except OSError as error:
            console.say(f"train: WARNING: an old state cannot be removed: {error}")

    def _failed(self, step: int, reason: str) -> None:
        self.failure = f"step {step}: {reason}"
        console.say(
            f"train: WARNING: the state of step {step} could NOT be saved: {reason}; training goes on, the next save "
            "tries again"
        )
        if self._processes.is_first:
            try:
                record.remove(self._path(step))  # on a full disk its files are in the way of the next try
            except OSError:
                console.say(f"train: what is left of it in {self._path(step)} cannot be removed either")


def abstract_like(state: Any, shardings: Any) -> Any:
    """Returns `state` as `jax.ShapeDtypeStruct`s that carry `shardings`, the form `restore` takes."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )
