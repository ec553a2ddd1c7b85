"""The device mesh: five named axes, sized by the config, one of them filled in from the devices present.

Axes stand in the order of how little they need to send: `slice` may cross a data-centre network, `tensor` needs the
neighbouring chips. On TPUs JAX lays them along the torus; of several slices each one holds a whole mesh of the other
four axes. Elsewhere devices are taken in their own order, so that a process's devices are neighbours.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from jaxwiz.config import ConfigError, section

if TYPE_CHECKING:  # configs stay importable without JAX
    import jax
    import numpy as np

AxisSize = Annotated[int, Field(ge=-1)]

AXES = ("slice", "data", "fsdp", "context", "tensor")


@section
class MeshConfig:
    """Sizes of the mesh axes; exactly one may be -1: all devices that the others leave.

    Attributes:
      slice: pod slices that only a data-centre network joins; each has its own replica and its part of the batch.
      data: replicas of the parameters within a slice, each with its own part of the batch.
      fsdp: shards of parameters, optimizer state and batch.
      context: shards of each row's positions, for sequences that do not fit one device; they share parameters too.
      tensor: shards of heads and feed-forward width within a layer.
    """

    slice: AxisSize = 1
    data: AxisSize = 1
    fsdp: AxisSize = -1
    context: AxisSize = 1
    tensor: AxisSize = 1

    def sizes(self, devices: int) -> dict[str, int]:
        """Returns {axis: size} for `devices` devices, in mesh order.

        Raises:
          ConfigError: sizes that no such number of devices can form.
        """
        sizes = {axis: getattr(self, axis) for axis in AXES}
        shown = _shown(sizes)
        if 0 in sizes.values() or list(sizes.values()).count(-1) > 1:
            raise ConfigError(f"mesh ({shown}): each size must be at least 1, and one of them may be -1")
        known = math.prod(size for size in sizes.values() if size != -1)
        if -1 in sizes.values():
            if devices % known:
                raise ConfigError(f"mesh ({shown}): {devices} devices do not divide by {known}; change the sizes given")
            return {axis: devices // known if size == -1 else size for axis, size in sizes.items()}
        if known != devices:
            raise ConfigError(f"mesh ({shown}): needs {known} devices, but {devices} are here; set one size to -1")
        return sizes


def make_mesh(config: MeshConfig, devices: "Sequence[jax.Device] | None" = None) -> "jax.sharding.Mesh":
    """Returns the mesh of all devices of this job, laid out for their topology.

    Args:
      config: the sizes.
      devices: which ones; None: all of this job. Those of a topology that is not here serve as well.

    Raises:
      ConfigError: the sizes do not fit the devices, their number of slices or the shape of their torus.
    """
    import jax

    devices = jax.devices() if devices is None else list(devices)
    sizes = config.sizes(len(devices))
    axis_types = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.sharding.Mesh(_laid_out(devices, sizes), AXES, axis_types=axis_types)


def _laid_out(devices: "Sequence[jax.Device]", sizes: dict[str, int]) -> "np.ndarray":
    """Returns the devices as an array of the mesh's shape."""
    from jax.experimental import mesh_utils

    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if devices[0].platform == "tpu" and slices != sizes["slice"]:
        raise ConfigError(
            f"mesh ({_shown(sizes)}): the devices are {slices} pod slice(s); set mesh.slice to {slices}, so that only "
            "this axis crosses the network between them"
        )
    shape = tuple(sizes.values())
    for split_physical_axes in (False, True):  # whole axes of the torus, where the sizes allow
        try:
            if slices > 1 and slices == sizes["slice"]:
                return mesh_utils.create_hybrid_device_mesh(
                    (1, *shape[1:]), (slices, 1, 1, 1, 1), devices, allow_split_physical_axes=split_physical_axes
                )
            return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=split_physical_axes)
        except NotImplementedError as error:
            reason = error
    raise ConfigError(f"mesh ({_shown(sizes)}): cannot be laid along these devices' torus: {reason}; change the sizes")


def _shown(sizes: dict[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())
