"""Topologies by name, and how fast a chip can receive from a group."""

from pathlib import Path

import pytest

from jaxwiz.files import UserError
from jaxwiz.plan.chips import CHIPS, GIB, Topology

PAGE = Path(__file__).resolve().parents[2] / "docs/plan.md"


def places(*sizes: int) -> list[tuple[int, ...]]:
    x, y, z = (*sizes, 1, 1)[:3]
    return [(i, j, k)[: max(2, len(sizes))] for i in range(x) for j in range(y) for k in range(z)]


def test_a_topology_has_a_name_and_chips():
    topology = Topology.parse("v5e:16x16", slices=2)
    assert (topology.name, topology.chips) == ("v5e:16x16", 512)
    assert Topology.parse("v4:4x4x4").chip.chip_config == "megacore"


@pytest.mark.parametrize(
    ("text", "said"),
    [("v5e", "GENERATION:SHAPE"), ("v9:4x4", "generations: v4, v5e, v5p, v6e"), ("v5p:4x4", "has 3 sizes")],
)
def test_a_wrong_name_is_explained(text: str, said: str):
    with pytest.raises(UserError, match=said):
        Topology.parse(text)


def test_a_slice_count_below_one_is_refused():
    with pytest.raises(UserError, match="--slices 0"):
        Topology.parse("v5e:4x4", slices=0)


@pytest.mark.parametrize(
    ("topology", "sizes", "links"),
    [
        ("v5e:4x4", (4, 4), 2),  # a corner has one neighbour along each open axis
        ("v5e:16x16", (16, 16), 4),  # closed to rings
        ("v5e:16x16", (4, 4), 2),  # a part of an axis is no ring
        ("v5p:4x4x4", (4, 4, 4), 6),
        ("v5p:2x2x2", (2, 2, 2), 3),
        ("v5p:4x4x4", (1, 1, 4), 2),
    ],
)
def test_a_group_receives_over_the_links_of_its_worst_placed_chip(topology: str, sizes: tuple[int, ...], links: int):
    slice_ = Topology.parse(topology)
    assert slice_.ingress(places(*sizes)) == links * slice_.chip.link_bandwidth


def test_what_a_program_may_use_is_near_what_a_chip_has():
    for chip in CHIPS.values():
        assert 0.95 <= chip.usable_bytes / chip.hbm_bytes <= 1.01, f"{chip.name}: {chip.usable_bytes / GIB} GiB"


def test_the_page_has_the_chips_as_they_are():
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in CHIPS:
            rows[cells[0]] = [float(cell.replace(",", "")) for cell in cells[1:]]
    for name, chip in CHIPS.items():
        expected = [chip.peak_flops / 1e12, chip.hbm_bytes / GIB, chip.usable_bytes / GIB, chip.hbm_bandwidth / 1e9]
        expected += [2 * chip.dimensions, chip.link_bandwidth / 1e9, chip.dcn_bandwidth / 1e9]
        assert rows[name] == pytest.approx(expected)
