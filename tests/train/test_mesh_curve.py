"""One device and eight, however they are split, train alike; XLA replicates nothing on the way that it should not."""

import json

import numpy as np
import pytest

from tests.devices import run_on_eight_devices
from tests.train.mesh_curve import MESHES, STEPS

IN_MAKE_TEST = "context 2 x fsdp 4"


def assert_equal_curves(*names: str) -> None:
    curves = json.loads(run_on_eight_devices("-m", "tests.train.mesh_curve", "one", *names))
    expected = curves.pop("one")
    assert len(expected) == STEPS and expected[-1] < expected[0] - 0.3  # it learns, else a wrong step would not show
    assert list(curves) == list(names)
    for name, curve in curves.items():
        np.testing.assert_allclose(curve, expected, atol=1e-4, err_msg=name)


def test_rows_split_over_devices_train_as_whole_ones():
    assert_equal_curves(IN_MAKE_TEST)


@pytest.mark.multiprocess
def test_every_mesh_trains_as_one_device():
    assert_equal_curves(*(name for name in MESHES if name != IN_MAKE_TEST))


@pytest.mark.multiprocess
@pytest.mark.parametrize("variant", ["lora", "adafactor", "muon", "z-loss and smoothing"])
def test_other_ways_to_train_do_on_a_mesh_what_they_do_on_one_device(variant: str):
    printed = run_on_eight_devices("-m", "tests.train.mesh_curve", f"--variant={variant}", "one", "context 2 x fsdp 4")
    one, split = json.loads(printed).values()
    assert one[-1] < one[0]
    np.testing.assert_allclose(split, one, atol=1e-4)
