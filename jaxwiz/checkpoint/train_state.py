"""The full state of a training run on disk: parameters, optimizer state and step, by Orbax, written asynchronously.

The data position is the step, so nothing else is needed to continue. A save is first copied off the devices, then
written while training goes on; a checkpoint is visible only once it is complete.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class TrainCheckpoints:
    """The checkpoints of one run, one folder a step."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Opens, or creates, the folder.

        Args:
          folder: where the checkpoints lie.
          keep: how many of the newest stay on disk.
        """
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Begins to write `state` as `step`; returns once it is safe to overwrite the arrays."""
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Returns the state of `step`.

        Args:
          step: one that exists.
          abstract_state: a pytree of `jax.ShapeDtypeStruct` with shardings: how the arrays shall lie now.
        """
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))

    def wait(self) -> None:
        """Returns once every save that was begun is complete on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for running saves and frees the manager's threads."""
        self._manager.close()


def abstract_like(state: Any, shardings: Any) -> Any:
    """Returns `state` as `jax.ShapeDtypeStruct`s that carry `shardings`, the form `restore` takes."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )
