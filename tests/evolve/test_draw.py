from collections import Counter

import pytest

from jaxwiz.evolve.draw import draw_operation, draw_operations, draw_subset, sampling_seed, shuffled

WEIGHTS = {"a/one": 1.0, "b/two": 2.0, "c/three": 1.0}
ARGUMENTS = {"seed": 3, "item": "seed-00001", "round_number": 2, "attempt": 1}


def test_operations_come_in_proportion_to_their_weights():
    drawn = Counter(draw_operation(WEIGHTS, 0, f"seed-{number}", 1, 0) for number in range(8000))
    assert drawn["b/two"] / 8000 == pytest.approx(0.5, abs=0.03)
    assert drawn["a/one"] / 8000 == pytest.approx(0.25, abs=0.03)


def test_the_order_in_which_operations_are_written_does_not_matter():
    backwards = dict(reversed(WEIGHTS.items()))
    for number in range(200):
        assert draw_operation(WEIGHTS, 0, str(number), 1, 0) == draw_operation(backwards, 0, str(number), 1, 0)


@pytest.mark.parametrize("change", [{"seed": 4}, {"item": "seed-00002"}, {"round_number": 3}, {"attempt": 2}])
def test_a_draw_depends_on_seed_item_round_and_attempt(change):
    changed = {**ARGUMENTS, **change}
    assert sampling_seed("evolve", **ARGUMENTS) == sampling_seed("evolve", **ARGUMENTS)
    assert sampling_seed("evolve", **ARGUMENTS) != sampling_seed("evolve", **changed)
    assert sampling_seed("evolve", **ARGUMENTS) != sampling_seed("judge", **ARGUMENTS)
    many = {f"x/{number}": 1.0 for number in range(10_000)}
    assert draw_operation(many, **ARGUMENTS) != draw_operation(many, **changed)


def test_sampling_seeds_fit_a_signed_32_bit_number():
    assert all(0 <= sampling_seed("answer", 0, str(number), 1, 0) < 2**31 for number in range(1000))


def test_a_subset_keeps_the_order_and_changes_from_round_to_round():
    items = list(range(50))
    names = [f"seed-{item}" for item in items]
    first, second = (draw_subset(items, names, 8, 0, number) for number in (1, 2))
    assert first == sorted(first)
    assert len(set(first)) == 8
    assert first != second
    assert draw_subset(items, names, 99, 0, 1) == items


def test_a_shuffle_depends_on_the_names_and_the_seed_alone():
    names = [f"seed-{number}" for number in range(20)]
    assert shuffled(names, 1) == shuffled(reversed(names), 1)
    assert sorted(shuffled(names, 1)) == sorted(names)
    assert shuffled(names, 1) != shuffled(names, 2) != names


@pytest.mark.parametrize("share", [0.0001, 0.05, 0.1, 0.9])
def test_a_quota_bounds_an_operations_share_of_a_round_and_changes_no_other_draw(share: float):
    items = [(f"seed-{number}", number % 3) for number in range(1000)]
    free = draw_operations(WEIGHTS, {}, 0, items, 1)
    assert free == [draw_operation(WEIGHTS, 0, name, 1, attempt) for name, attempt in items]
    bounded = draw_operations(WEIGHTS, {"b/two": share}, 0, items, 1)
    assert bounded.count("b/two") == min(free.count("b/two"), int(1000 * share))
    moved = [(before, after) for before, after in zip(free, bounded, strict=True) if before != after]
    assert {before for before, _ in moved} <= {"b/two"} and {after for _, after in moved} <= {"a/one", "c/three"}
    if len(moved) > 200:
        assert 0.3 < sum(after == "a/one" for _, after in moved) / len(moved) < 0.7


def test_a_quotas_choice_does_not_depend_on_the_order_of_items():
    items = [(f"seed-{number}", 0) for number in range(300)]
    forwards = draw_operations(WEIGHTS, {"b/two": 0.1, "c/three": 0.2}, 0, items, 1)
    assert draw_operations(WEIGHTS, {"b/two": 0.1, "c/three": 0.2}, 0, items[::-1], 1) == forwards[::-1]
