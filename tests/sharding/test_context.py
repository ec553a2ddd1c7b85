"""Which positions lie where when rows are split: every device gets an early and a late part of each row."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.sharding.context import context_places, to_context_order, to_row_order


def test_two_devices_hold_the_outer_and_the_inner_chunks():
    row = jnp.arange(8)[None]
    assert to_context_order(row, 2).tolist() == [[0, 1, 6, 7, 2, 3, 4, 5]]


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_row_order_comes_back_and_places_say_where_each_position_was(devices: int):
    rows = jnp.arange(2 * 24 * 3).reshape(2, 24, 3)
    moved = to_context_order(rows, devices)
    np.testing.assert_array_equal(to_row_order(moved, devices), rows)
    if devices > 1:
        np.testing.assert_array_equal(moved, rows[:, context_places(24, devices)])


@pytest.mark.parametrize("devices", [2, 4])
def test_every_device_sees_as_many_pairs_under_a_causal_mask(devices: int):
    seen = (context_places(64, devices) + 1).reshape(devices, -1).sum(axis=1)
    assert len(set(seen.tolist())) == 1
