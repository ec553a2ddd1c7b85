"""Which row stands where: epochs that visit each row once, and mixes whose shares are exact."""

import itertools

import numpy as np
import pytest

from jaxwiz.data.order import EMPTY, EpochOrder, MixedOrder, Order, whole_weights
from jaxwiz.files import UserError


def batch(order: Order, step: int, size: int) -> list[tuple[int, int]]:
    datasets, rows = order.places(step, 0, size)
    return list(zip(datasets.tolist(), rows.tolist(), strict=True))


def test_stored_order_goes_through_one_dataset_after_another_and_fills_up():
    order = EpochOrder([2, 3], 4, seed=0, shuffle=False)
    assert order.steps_per_epoch == 2
    expected = [[(0, 0), (0, 1), (1, 0), (1, 1)], [(1, 2), (0, EMPTY), (0, EMPTY), (0, EMPTY)]]
    assert [batch(order, step, 4) for step in range(4)] == expected * 2


def test_a_shuffled_epoch_visits_each_row_of_all_datasets_once():
    order = EpochOrder([5, 8], 4, seed=3, shuffle=True)
    epochs = []
    for epoch in range(3):
        places = [place for step in range(4) for place in batch(order, 4 * epoch + step, 4)]
        assert sorted(places) == [(0, EMPTY)] * 3 + [(0, n) for n in range(5)] + [(1, n) for n in range(8)]
        epochs.append(places)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_mix_has_the_shares_of_its_weights_at_every_point():
    """3 : 1 : 0.5 are 6 : 2 : 1 of 9 rows; nowhere is a dataset a whole row ahead or behind."""
    order = MixedOrder([4, 7, 3], [3, 1, 0.5], batch_size=9, seed=1)
    datasets = np.concatenate([order.places(step, 0, 9)[0] for step in range(20)])
    seen = np.stack([np.cumsum(datasets == dataset) for dataset in range(3)], axis=1)
    due = np.arange(1, 181)[:, None] * np.array([6, 2, 1]) / 9
    assert np.abs(seen - due).max() < 1
    assert (seen[8::9] == due[8::9]).all()
    assert order.steps_per_epoch == 2


def test_each_dataset_of_a_mix_goes_through_epochs_of_its_own():
    order = MixedOrder([4, 7], [2, 1], batch_size=6, seed=1)
    places = [place for step in range(28) for place in batch(order, step, 6)]
    for dataset, rows in ((0, 4), (1, 7)):
        drawn = [row for of, row in places if of == dataset]
        epochs = [tuple(drawn[begin : begin + rows]) for begin in range(0, len(drawn), rows)]
        assert all(sorted(epoch) == list(range(rows)) for epoch in epochs)
        assert len(set(epochs)) > 1
    assert places[:6] != batch(MixedOrder([4, 7], [2, 1], 6, seed=2), 0, 6)


@pytest.mark.parametrize(
    "order",
    [
        EpochOrder([5, 8], 6, seed=3, shuffle=True),
        EpochOrder([5, 8], 6, seed=3, shuffle=False),
        MixedOrder([5, 8], [1, 0.3], 6, seed=3),
    ],
)
def test_parts_of_a_batch_make_the_whole_in_any_order_of_asking(order: Order):
    whole = {step: batch(order, step, 6) for step in range(9)}
    for step in (8, 0, 3, 7, 1):
        for cuts in ((0, 2, 4, 6), (0, 5, 6)):
            parts = [order.places(step, begin, end) for begin, end in itertools.pairwise(cuts)]
            joined = [np.concatenate(arrays).tolist() for arrays in zip(*parts, strict=True)]
            assert list(zip(*joined, strict=True)) == whole[step]


def test_the_order_of_a_mix_never_changes():
    """A resumed run may have another NumPy; the order must not hang on it."""
    order = MixedOrder([4, 7], [2, 1], batch_size=12, seed=1)
    datasets, rows = order.places(5, 0, 12)
    assert datasets.tolist() == [0, 1, 0] * 4
    assert rows.tolist() == [0, 3, 3, 1, 5, 2, 2, 0, 0, 1, 3, 3]


def test_a_far_step_costs_no_more_than_the_first():
    order = MixedOrder([4, 7], [2, 1], batch_size=12, seed=1)
    _, rows = order.places(10**15, 0, 12)
    assert len(rows) == 12 and rows.max() < 7 and (rows >= 0).all()


def test_weights_count_as_they_are_written():
    assert whole_weights([0.1, 0.2, 0.7]).tolist() == [1, 2, 7]
    assert whole_weights([1.0, 2.5]).tolist() == [2, 5]
    assert whole_weights([30, 10]).tolist() == [3, 1]
    with pytest.raises(UserError, match="round them"):
        whole_weights([1, 0.123456789])
    with pytest.raises(UserError, match="above 0"):
        whole_weights([1, 0.0])
