"""What one run of a compiled program computes and moves on each device: FLOPs, bytes of memory, bytes of collectives.

Counted from the optimised program itself, every operation as often as it runs:

- FLOPs of matrix products (which TPU compilers write as convolutions), and of the attention kernels by their blocks.
- Bytes of HBM: operands read and results written by every operation that is not part of a fusion, but for arrays that
  the compiler placed on the chip. Of an operand that is only sliced, the slices.
- Bytes that a device receives in collectives, and over which links: ICI within a slice, the data-centre network (DCN)
  between slices. A ring of `collective-permute`s, as which the compiler writes a gather or reduction that it overlaps
  with a matrix product, is routed link by link. Between slices programs send and receive through their host, whose
  runtime does what the collective's type says.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from jaxwiz.plan.chips import Topology
from jaxwiz.plan.groups import group_of, permutation
from jaxwiz.plan.hlo import ArrayType, Computation, Execution, Op, Program

Place = tuple[int, ...]  # a chip's slice and its coordinates on the torus
Link = tuple[Place, int, int]  # from a chip, along an axis, up or down

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# Products of a block of queries with a block of keys that each kernel makes (2 forward; backward recomputes scores).
_KERNEL_PRODUCTS = {"fwd": 2, "dkv": 4, "dq": 3}

_FREE = {  # operations that move nothing
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota"),
    *("after-all", "partition-id", "replica-id", "optimization-barrier", "copy-done", "all-gather-done"),
    *(
        "send",
        "send-done",
        "recv",
        "recv-done",
        "all-reduce-done",
        "collective-permute-done",
        "async-done",
        "async-update",
        "slice-done",
        "dynamic-slice-done",
    ),
}


@dataclasses.dataclass
class Traffic:
    """What one run of a program takes on each device.

    Attributes:
      matmul_flops: FLOPs of matrix products.
      kernel_flops: FLOPs of attention kernels.
      hbm_bytes: bytes read from and written to HBM.
      ici_bytes: {kind of collective: bytes received over ICI}.
      dcn_bytes: {kind of collective: bytes received over DCN}.
      ici_seconds: time of all ICI traffic at full speed of the links, nothing else running.
      guessed_loops: loops whose number of runs depends on data.
    """

    matmul_flops: float = 0.0
    kernel_flops: float = 0.0
    hbm_bytes: float = 0.0
    ici_bytes: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    dcn_bytes: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    ici_seconds: float = 0.0
    guessed_loops: list[str] = dataclasses.field(default_factory=list)

    @property
    def flops(self) -> float:
        """All FLOPs."""
        return self.matmul_flops + self.kernel_flops


def measure(program: Program, topology: Topology, places: Sequence[Place]) -> Traffic:
    """Returns what one run of a program takes on each device.

    Args:
      program: optimised for the topology.
      topology: where it runs.
      places: of each device in the program's order, (slice, x, y[, z]).
    """
    traffic = Traffic()
    links: dict[Link, float] = collections.defaultdict(float)
    in_flight: set[tuple[str, str]] = set()
    for execution in program.executions():
        op = execution.op
        kind = op.opcode.removesuffix("-start")
        if kind in KINDS:
            if not _seen_before(execution, in_flight):
                _add_collective(traffic, links, execution, kind, topology, places)
        elif op.opcode == "send":
            _add_between_slices(traffic, execution, topology.slices)
        elif op.opcode == "convolution":
            traffic.matmul_flops += execution.times * convolution_flops(op, execution.within)
        elif op.opcode == "dot":
            traffic.matmul_flops += execution.times * dot_flops(op, execution.within)
        elif op.opcode == "custom-call" and "tpu_custom_call" in op.attributes:
            traffic.kernel_flops += execution.times * kernel_flops(op, execution.within)
        if not execution.fused and kind not in KINDS and op.opcode not in _FREE:
            traffic.hbm_bytes += execution.times * _hbm_bytes(op, execution.within, program)
    traffic.ici_seconds += max(links.values(), default=0.0) / topology.chip.link_bandwidth
    traffic.guessed_loops = sorted(program.guessed_loops)
    return traffic


def _seen_before(execution: Execution, in_flight: set[tuple[str, str]]) -> bool:
    """Returns whether this is another part of a collective that was counted: its start, steps and end share a channel.

    The TPU compiler spreads a collective over several fusions, to run it beside matrix products; each one repeats it.
    """
    channel = re.search(r"channel_id=(\d+)", execution.op.attributes)
    if not execution.fused or channel is None:
        return False
    key = (execution.owner, channel[1])
    if key in in_flight:
        return True
    in_flight.add(key)
    return False


def _add_collective(
    traffic: Traffic,
    links: dict[Link, float],
    execution: Execution,
    kind: str,
    topology: Topology,
    places: Sequence[Place],
) -> None:
    op, times = execution.op, execution.times
    size = sum(array.bytes for array in _operands(op, execution.within)) * times
    if kind == "collective-permute":
        pairs = permutation(op)
        crossing = any(places[one][0] != places[other][0] for one, other in pairs)
        (traffic.dcn_bytes if crossing else traffic.ici_bytes)[kind] += size
        if not crossing:
            for one, other in pairs:
                for link in route(topology, places[one], places[other]):
                    links[link] += size
        return
    group = group_of(op, len(places))
    members = [places[number] for number in group]
    slices = {place[0] for place in members}
    kind, received = _received(kind, size, len(group), op, execution)
    if len(slices) > 1:  # what is joined within each slice first need cross the network only once
        traffic.dcn_bytes[kind] += received * (1 - 1 / len(slices)) / (1 - 1 / len(group)) * len(slices) / len(group)
        if len(group) == len(slices):
            return
    traffic.ici_bytes[kind] += received
    first = members[0][0]
    speed = topology.ingress([place[1:] for place in members if place[0] == first])
    traffic.ici_seconds += received / speed if speed else 0.0


def _add_between_slices(traffic: Traffic, execution: Execution, slices: int) -> None:
    """Counts a transfer that the runtime makes between the devices at one place of all slices, where this is one."""
    transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', execution.op.attributes)
    if transfer is None:
        return
    kind = transfer[1].lower().replace("_", "-")
    kind = kind if kind in KINDS else "collective-permute"
    size = execution.within.ops[execution.op.operands[0]].arrays[0].bytes * execution.times
    if kind != "collective-permute":
        kind, size = _received(kind, size, slices, execution.op, execution)
    traffic.dcn_bytes[kind] += size


def _received(kind: str, size: float, devices: int, op: Op, execution: Execution) -> tuple[str, float]:
    """Returns (kind, bytes that a device receives) of a collective whose operands have `size` bytes."""
    others = devices - 1
    if kind == "all-gather":
        return kind, size * others
    if kind == "all-reduce" and execution.fused and _scattered(op, execution.within):
        kind = "reduce-scatter"
    share = others / devices
    return kind, size * share * (2 if kind == "all-reduce" else 1)


def _scattered(op: Op, within: Computation) -> bool:
    """Returns whether a fusion keeps only this device's part of an all-reduce: how TPUs write a reduce-scatter."""
    users = [other for other in within.ops.values() if op.name in other.operands]
    while len(users) == 1 and users[0].opcode in ("bitcast", "reshape", "copy"):
        users = [other for other in within.ops.values() if users[0].name in other.operands]
    return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def route(topology: Topology, start: Place, end: Place) -> list[Link]:
    """Returns the links that a message takes, axis after axis, the shorter way round a ring: (chip, axis, direction).

    Args:
      topology: the torus.
      start: (slice, *coordinates).
      end: likewise.
    """
    links = []
    here = list(start)
    for axis, size in enumerate(topology.shape):
        distance = end[axis + 1] - here[axis + 1]
        if topology.closed(axis) and abs(distance) > size / 2:
            distance -= int(math.copysign(size, distance))
        direction = 1 if distance > 0 else -1
        for _ in range(abs(distance)):
            links.append((tuple(here), axis, direction))
            here[axis + 1] = (here[axis + 1] + direction) % size
    return links


def _operands(op: Op, within: Computation) -> list[ArrayType]:
    return [array for name in op.operands for array in within.ops[name].arrays]


def _hbm_bytes(op: Op, within: Computation, program: Program) -> int:
    if op.opcode in ("copy-start", "slice-start", "dynamic-slice-start"):  # results: target, source, a flag
        pair = [array for array in op.arrays if array.dims]
        moved = min((array.bytes for array in pair), default=0)
        return moved * sum(array.in_hbm for array in pair[:2])
    written = sum(array.bytes for array in op.arrays if array.in_hbm)
    if op.opcode == "dynamic-slice":
        return written + op.arrays[0].bytes * within.ops[op.operands[0]].arrays[0].in_hbm
    if op.opcode == "dynamic-update-slice":
        return 2 * within.ops[op.operands[1]].arrays[0].bytes
    if op.opcode == "fusion":
        return _fusion_bytes(op, within, program, written)
    return written + sum(array.bytes for array in _operands(op, within) if array.in_hbm)


def _fusion_bytes(op: Op, within: Computation, program: Program, written: int) -> int:
    inner = program.computations[op.called[0]]
    read = 0
    for number, name in enumerate(op.operands):
        operand = within.ops[name].arrays
        if len(operand) != 1 or not operand[0].in_hbm or number not in inner.parameters:
            continue
        read += min(operand[0].bytes, _read_bytes(inner, inner.parameters[number], program))
    for update in (one for one in inner.ops.values() if one.opcode == "dynamic-update-slice"):
        if update.arrays[0].in_hbm and update.arrays[0].bytes <= written:  # in place: the rest is not written again
            written -= update.arrays[0].bytes - inner.ops[update.operands[1]].arrays[0].bytes
    return read + written


def _read_bytes(inner: Computation, name: str, program: Program) -> int:
    """Returns how much of one of its arrays a fusion reads: all, or the slices, through fusions within it."""
    read = 0
    for user in inner.ops.values():
        if name not in user.operands:
            continue
        if user.opcode in ("bitcast", "reshape"):
            read += _read_bytes(inner, user.name, program)
        elif user.opcode == "fusion":
            called = program.computations[user.called[0]]
            read += _read_bytes(called, called.parameters[user.operands.index(name)], program)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            read += user.arrays[0].bytes
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return inner.ops[name].arrays[0].bytes
    return read


def convolution_flops(op: Op, within: Computation) -> float:
    """Returns 2 FLOPs for each product that a convolution makes; padding makes none."""
    window = op.attribute("window") or ""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes)
    if labels is None:
        return 0.0
    left, right = within.ops[op.operands[0]].arrays[0].dims, within.ops[op.operands[1]].arrays[0].dims
    out = op.arrays[0].dims
    options = dict(re.findall(r"(\w+)=(\S+)", window))
    spatial = sorted(char for char in labels[2] if char.isdigit())
    sizes = [right[labels[2].index(char)] for char in spatial]

    def each(key: str, default: str) -> list[str]:
        return options[key].split("x") if key in options else [default] * len(spatial)

    pads, strides = each("pad", "0_0"), each("stride", "1")
    left_dilation, right_dilation = each("lhs_dilate", "1"), each("rhs_dilate", "1")
    products = 1
    for place, char in enumerate(spatial):
        outs = np.arange(out[labels[3].index(char)])[:, None] * int(strides[place]) - int(pads[place].split("_")[0])
        reached = outs + np.arange(sizes[place])[None, :] * int(right_dilation[place])
        dilation, length = int(left_dilation[place]), left[labels[1].index(char)]
        products *= int(((reached >= 0) & (reached <= (length - 1) * dilation) & (reached % dilation == 0)).sum())
    batch, features = out[labels[3].index("b")], out[labels[3].index("f")]
    return 2.0 * products * batch * features * right[labels[2].index("i")]


def dot_flops(op: Op, within: Computation) -> float:
    """Returns 2 FLOPs for each product that a dot makes."""
    left = within.ops[op.operands[0]].arrays[0].dims
    contracted = [int(number) for number in (op.attribute("lhs_contracting_dims") or "").split(",") if number]
    return 2.0 * math.prod(op.arrays[0].dims) * math.prod(left[number] for number in contracted)


def kernel_flops(op: Op, within: Computation) -> float:
    """Returns the FLOPs of a splash attention kernel: of the blocks on and below the diagonal."""
    part = re.search(r"splash_m[qh]a_(fwd|dkv|dq)", op.name)
    if part is None:
        return 0.0
    queries = next((array for array in _operands(op, within) if len(array.dims) >= 3 and array.dtype == "bf16"), None)
    if queries is None:
        queries = next(array for array in _operands(op, within) if len(array.dims) >= 3 and array.dtype == "f32")
    length = queries.dims[-2]
    block = re.search(rf'block_q{"" if part[1] == "fwd" else "_" + part[1]}\\*": (\d+)', op.attributes)
    blocks = length / int(block[1]) if block else 1
    square = 2.0 * math.prod(queries.dims) * length
    return _KERNEL_PRODUCTS[part[1]] * square * (blocks + 1) / (2 * blocks)
