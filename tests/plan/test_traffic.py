"""What programs compute and move, on programs small enough to count by hand."""

import pytest

from jaxwiz.plan.chips import Topology
from jaxwiz.plan.hlo import Program
from jaxwiz.plan.traffic import measure, route

V5E = Topology.parse("v5e:2x2")
PLACES = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
TWO_SLICES = Topology.parse("v5e:2x1", slices=2)
PLACES_OF_TWO = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
ALL = "replica_groups={{0,1,2,3}}"


def program(*lines: str) -> Program:
    body = "\n".join(f"  {line}" for line in lines)
    return Program(f"HloModule test\n\nENTRY %main (x: bf16[8,16]) -> bf16[8,16] {{\n{body}\n}}\n")


X = "%x = bf16[8,16]{1,0:T(8,128)} parameter(0)"  # 256 bytes


@pytest.mark.parametrize(
    ("line", "kind", "received"),
    [
        (f"%y = bf16[32,16]{{1,0}} all-gather(%x), channel_id=1, {ALL}, dimensions={{0}}", "all-gather", 3 * 256),
        (f"%y = bf16[2,16]{{1,0}} reduce-scatter(%x), channel_id=1, {ALL}", "reduce-scatter", 192),
        (f"%y = bf16[8,16]{{1,0}} all-reduce(%x), channel_id=1, {ALL}, to_apply=%add", "all-reduce", 2 * 192),
        (f"%y = bf16[8,16]{{1,0}} all-to-all(%x), channel_id=1, {ALL}", "all-to-all", 192),
    ],
)
def test_each_collective_is_counted_by_what_a_device_receives(line: str, kind: str, received: float):
    traffic = measure(program(X, line), V5E, PLACES)
    assert {name: size for name, size in traffic.ici_bytes.items() if size} == {kind: pytest.approx(received)}
    # A 2 x 2 square has no rings: each chip has one neighbour along either axis.
    assert traffic.ici_seconds == pytest.approx(received / (2 * V5E.chip.link_bandwidth))


def test_a_start_is_counted_and_its_done_is_not():
    start = f"%s = (bf16[8,16]{{1,0}}, bf16[32,16]{{1,0}}) all-gather-start(%x), channel_id=1, {ALL}"
    traffic = measure(program(X, start, "%y = bf16[32,16]{1,0} all-gather-done(%s)"), V5E, PLACES)
    assert traffic.ici_bytes["all-gather"] == 3 * 256


def test_parts_of_one_collective_in_several_fusions_are_counted_once():
    fused = """%part{0} (p: bf16[8,16]) -> bf16[32,16] {{
  %p{0} = bf16[8,16]{{1,0}} parameter(0)
  ROOT %g{0} = bf16[32,16]{{1,0}} all-gather(%p{0}), channel_id=7, replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}
}}
"""
    main = "ENTRY %main (x: bf16[8,16]) -> bf16[32,16] {\n  " + X + "\n"
    for part in "ab":
        main += f"  %f{part} = bf16[32,16]{{1,0}} fusion(%x), kind=kCustom, calls=%part{part}\n"
    traffic = measure(Program(fused.format("a") + fused.format("b") + main + "}\n"), V5E, PLACES)
    assert traffic.ici_bytes["all-gather"] == 3 * 256


def test_a_ring_of_permutes_takes_as_long_as_its_fullest_link():
    ring = "%y = bf16[8,16]{1,0} collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,3},{3,2},{2,0}}"
    traffic = measure(program(X, ring), V5E, PLACES)
    assert traffic.ici_bytes["collective-permute"] == 256
    assert traffic.ici_seconds == pytest.approx(256 / V5E.chip.link_bandwidth)  # every message has a link to itself


def test_messages_go_the_shorter_way_round_a_ring_and_never_across_an_open_end():
    ring, line = Topology.parse("v5e:16x16"), Topology.parse("v5e:8x8")
    assert len(route(ring, (0, 0, 0), (0, 15, 0))) == 1
    assert len(route(line, (0, 0, 0), (0, 7, 0))) == 7
    assert len(route(ring, (0, 1, 1), (0, 3, 2))) == 3


def test_only_traffic_between_slices_is_network_traffic():
    within = "%y = bf16[16,16]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}"
    across = "%y = bf16[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,2},{1,3}}, to_apply=%add"
    inside = measure(program(X, within), TWO_SLICES, PLACES_OF_TWO)
    between = measure(program(X, across), TWO_SLICES, PLACES_OF_TWO)
    assert (sum(inside.ici_bytes.values()), sum(inside.dcn_bytes.values())) == (256, 0)
    assert (sum(between.ici_bytes.values()), sum(between.dcn_bytes.values())) == (0, pytest.approx(256))


def test_a_product_is_two_flops_a_pair():
    dot = "%y = bf16[8,32]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    weights = "%w = bf16[16,32]{1,0} parameter(1)"
    as_convolution = "%y = bf16[8,32]{1,0} convolution(%x, %w), dim_labels=bf_io->bf"
    for line in (dot, as_convolution):
        assert measure(program(X, weights, line), V5E, PLACES).matmul_flops == 2 * 8 * 16 * 32


def test_a_convolution_counts_no_padding():
    rows = "%a = bf16[1,4,16]{2,1,0} parameter(1)"
    taps = "%k = bf16[3,16,32]{2,1,0} parameter(2)"
    line = "%y = bf16[1,4,32]{2,1,0} convolution(%a, %k), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
    pairs = 3 + 3 + 2 + 2  # the outer two of 4 places see 2 of 3 taps
    assert measure(program(X, rows, taps, line), V5E, PLACES).matmul_flops == 2 * pairs * 16 * 32


def test_memory_traffic_leaves_out_what_stays_on_the_chip():
    plain = "%y = bf16[8,16]{1,0} add(%x, %x)"
    on_chip = "%y = bf16[8,16]{1,0:T(8,128)S(1)} add(%x, %x)"
    assert measure(program(X, plain), V5E, PLACES).hbm_bytes == 3 * 256
    assert measure(program(X, on_chip), V5E, PLACES).hbm_bytes == 2 * 256


def test_of_an_operand_that_is_sliced_only_the_slice_is_read():
    text = """%one (p: bf16[8,16], i: s32[]) -> bf16[1,16] {
  %p = bf16[8,16]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = bf16[1,16]{1,0} dynamic-slice(%p, %i), dynamic_slice_sizes={1,16}
}
"""
    main = f"ENTRY %main (x: bf16[8,16], n: s32[]) -> bf16[1,16] {{\n  {X}\n  %n = s32[] parameter(1)\n"
    main += "  %y = bf16[1,16]{1,0} fusion(%x, %n), kind=kLoop, calls=%one\n}\n"
    assert measure(Program(text + main), V5E, PLACES).hbm_bytes == pytest.approx(2 * 32, abs=4)


def test_what_goes_through_the_hosts_of_slices_is_network_traffic():
    send = (
        "%s = (bf16[8,16]{1,0}, u32[], token[]) send(%x, %t), channel_id=2, is_host_transfer=true, "
        'frontend_attributes={_xla_megascale_target="{0,1}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    traffic = measure(program(X, "%t = token[] after-all()", send), TWO_SLICES, PLACES_OF_TWO)
    assert traffic.dcn_bytes["all-reduce"] == 256  # of two slices each gets the other's part, and the sum of it
    assert not any(traffic.ici_bytes.values())
