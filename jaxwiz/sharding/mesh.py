"""The device mesh: three named axes, sized by the config, one of them filled in from the devices present."""

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from jaxwiz.config import ConfigError, section

if TYPE_CHECKING:  # configs stay importable without JAX
    import jax

AxisSize = Annotated[int, Field(ge=-1)]


@section
class MeshConfig:
    """Sizes of the mesh axes; exactly one may be -1: all devices that the others leave.

    Attributes:
      data: replicas of the parameters, each with its own part of the batch.
      fsdp: shards of parameters, optimizer state and batch.
      tensor: shards of heads and feed-forward width within a layer.
    """

    data: AxisSize = 1
    fsdp: AxisSize = -1
    tensor: AxisSize = 1

    def sizes(self, devices: int) -> dict[str, int]:
        """Returns {axis: size} for `devices` devices, in mesh order.

        Raises:
          ConfigError: sizes that no such number of devices can form.
        """
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        shown = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
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


def make_mesh(config: MeshConfig) -> "jax.sharding.Mesh":
    """Returns the mesh of all devices of this job, laid out for the topology by JAX.

    Raises:
      ConfigError: the sizes do not fit the number of devices.
    """
    import jax

    sizes = config.sizes(jax.device_count())
    axis_types = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=axis_types)
