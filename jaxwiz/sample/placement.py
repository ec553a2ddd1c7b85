"""Where the engine's arrays lie: on one device, or split over a mesh by the table of `sharding/rules.py`."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxwiz.model.inference import InferenceWeights, weight_shardings
from jaxwiz.model.pages import PagedCache, cache_shardings
from jaxwiz.sharding.rules import RULES, batch_shards, replicated


class Placement:
    """Puts arrays on the devices. They are named outright: what is merely there by default compiles a second time."""

    def __init__(self, mesh: Mesh | None, slots: int) -> None:
        """Takes a mesh, or None for the first device, and the number of slots."""
        self._mesh = mesh
        self._whole = SingleDeviceSharding(jax.devices()[0]) if mesh is None else replicated(mesh)
        divides = mesh is not None and slots % batch_shards(mesh.shape) == 0
        self._rows = NamedSharding(mesh, PartitionSpec(RULES["batch"])) if mesh and divides else self._whole

    def weights(self, weights: InferenceWeights) -> InferenceWeights:
        """Returns the weights on the devices."""
        return jax.device_put(weights, self._whole if self._mesh is None else weight_shardings(weights, self._mesh))

    def cache(self, cache: PagedCache) -> PagedCache:
        """Returns the cache on the devices."""
        return jax.device_put(cache, self._whole if self._mesh is None else cache_shardings(cache, self._mesh))

    def rows(self, arrays: Any) -> Any:
        """Returns arrays [slots, ...] on the devices, split by slots where they divide."""
        return jax.device_put(arrays, self._rows)

    def whole(self, arrays: Any) -> Any:
        """Returns arrays that every device holds whole."""
        return jax.device_put(arrays, self._whole)
