"""Mesh sizes fit the devices or are named; devices are laid out so that only `slice` crosses pod slices."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxwiz.config import ConfigError
from jaxwiz.sharding.mesh import AXES, MeshConfig, make_mesh


def test_one_size_is_filled_in_from_the_devices():
    sizes = {"slice": 1, "data": 2, "fsdp": 2, "context": 2, "tensor": 2}
    assert MeshConfig(data=2, fsdp=-1, context=2, tensor=2).sizes(16) == sizes
    assert tuple(sizes) == AXES


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"context": 3}, "8 devices do not divide by 3"),
        ({"slice": 2, "fsdp": 2}, "slice 2, data 1, fsdp 2, context 1, tensor 1.*needs 4 devices, but 8 are here"),
        ({"tensor": 0}, "must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        MeshConfig(**sizes).sizes(8)


def test_a_mesh_of_the_devices_here_and_of_devices_given():
    assert make_mesh(MeshConfig()).size == jax.device_count()
    assert make_mesh(MeshConfig(), jax.devices()[:1]).shape == dict.fromkeys(AXES, 1)


def absent_pod(slices: int) -> list[SimpleNamespace]:
    """Chips of `slices` pod slices, 2 x 4 each, as far as laying them out asks."""
    return [
        SimpleNamespace(
            id=8 * index + 4 * y + x,
            platform="tpu",
            device_kind="TPU v5 lite",
            slice_index=index,
            process_index=index,
            coords=(x, y, 0),
            core_on_chip=0,
        )
        for index in range(slices)
        for y in range(2)
        for x in range(4)
    ]


def laid_out(config: MeshConfig, devices: list, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(jax.sharding, "Mesh", lambda array, axes, axis_types: SimpleNamespace(devices=array))
    return make_mesh(config, devices).devices


def test_each_pod_slice_holds_a_whole_mesh_of_the_other_axes(monkeypatch: pytest.MonkeyPatch):
    devices = laid_out(MeshConfig(slice=2, fsdp=4, tensor=2), absent_pod(2), monkeypatch)
    assert devices.shape == (2, 1, 4, 1, 2)
    for index, part in enumerate(devices):
        assert {device.slice_index for device in part.flat} == {index}


def test_neighbours_along_an_axis_are_neighbours_on_the_torus(monkeypatch: pytest.MonkeyPatch):
    devices = laid_out(MeshConfig(fsdp=4, tensor=2), absent_pod(1), monkeypatch)
    for pair in devices.reshape(4, 2):
        assert sum(abs(a - b) for a, b in zip(pair[0].coords, pair[1].coords, strict=True)) == 1


@pytest.mark.parametrize("config", [MeshConfig(fsdp=16), MeshConfig(slice=4)])
def test_slices_that_the_config_does_not_know_of_are_an_error(config: MeshConfig):
    with pytest.raises(ConfigError, match=r"the devices are 2 pod slice\(s\); set mesh.slice to 2"):
        make_mesh(config, absent_pod(2))  # type: ignore[arg-type]
