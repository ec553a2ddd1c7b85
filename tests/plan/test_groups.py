"""Groups of devices in every way in which XLA writes them."""

import pytest

from jaxwiz.plan.groups import group_of, permutation
from jaxwiz.plan.hlo import HloError, Op


def op(attributes: str) -> Op:
    return Op("collective", "all-gather", (), (), attributes)


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", [0, 2]),
        ("replica_groups={}", [0, 1, 2, 3]),
        ("replica_groups=[2,2]<=[4]", [0, 1]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [0, 2]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}", [0, 1]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}, dimensions={1}", [0, 2]),
        ("replica_groups=mesh['axis_0'=4] {'axis_0':(2)2}", [0, 1]),
        ("replica_groups=mesh['axis_0'=4] {'axis_0':(1)2}", [0, 2]),
        ("dimensions={0}", [0, 1, 2, 3]),
    ],
)
def test_the_first_group(written: str, group: list[int]):
    assert group_of(op(f", channel_id=1, {written}, use_global_device_ids=true"), 4) == group


def test_an_unknown_way_is_an_error():
    with pytest.raises(HloError, match="not understood"):
        group_of(op("replica_groups=everyone"), 4)


def test_a_permutation_leaves_out_those_that_stay():
    assert permutation(op(", source_target_pairs={{0,1},{1,0},{2,2}}, channel_id=3")) == [(0, 1), (1, 0)]
