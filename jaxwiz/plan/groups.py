"""Which devices take part in a collective together, from the ways in which XLA writes it.

    {{0,1},{2,3}}                               listed
    [2,2]<=[4], [2,2]<=[2,2]T(1,0)              iota: device numbers reshaped, transposed, reshaped
    mesh['axis_0'=2,'axis_1'=2] {'axis_1'}      axes of a mesh of device numbers; 'axis_1':(1)2 is a part of an axis

Numbers are places in the program's order of devices. One group is enough: all groups of a collective are alike.
"""

import math
import re
from typing import Any

import numpy as np

from jaxwiz.plan.hlo import HloError, Op

_MESH = re.compile(r"mesh\[([^\]]*)\](?:[^{]*?)\{([^}]*)\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


def group_of(op: Op, devices: int) -> list[int]:
    """Returns the devices of the first group of a collective.

    Args:
      op: the collective.
      devices: all devices of the program.

    Raises:
      HloError: its groups are written in a way that is not known.
    """
    match = re.search(r"replica_groups=(.*)", op.attributes)
    if match is None:
        return list(range(devices))
    text = match[1]
    if text.startswith("{"):
        listed = re.match(r"\{\{([\d,\s]*)\}", text)
        return [int(number) for number in listed[1].split(",")] if listed else list(range(devices))
    if text.startswith("mesh"):
        return _mesh_group(text)
    iota = _IOTA.match(text)
    if iota is None:
        raise HloError(f"{op.name}: replica groups {text[:80]!r} are not understood")
    numbers = np.arange(math.prod(_sizes(iota[2]))).reshape(_sizes(iota[2]))
    if iota[3]:
        numbers = numbers.transpose(_sizes(iota[3]))
    return numbers.reshape(_sizes(iota[1]))[0].tolist()


def permutation(op: Op) -> list[tuple[int, int]]:
    """Returns the (source, target) devices of a collective-permute, those that stay where they are left out."""
    text = op.attribute("source_target_pairs") or ""
    pairs = [(int(one), int(other)) for one, other in re.findall(r"\{(\d+),(\d+)\}", text)]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _mesh_group(text: str) -> list[int]:
    match = _MESH.match(text)
    if match is None:
        raise HloError(f"replica groups {text[:80]!r} are not understood")
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
    order = _IOTA.search(text[: match.start(2)])
    numbers = np.arange(math.prod(sizes.values()))
    if order is not None:
        numbers = numbers.reshape(_sizes(order[2]))
        numbers = (numbers.transpose(_sizes(order[3])) if order[3] else numbers).reshape(-1)
    numbers = numbers.reshape(list(sizes.values()))
    index: list[Any] = []
    parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", match[2])
    chosen = {name: (int(before or 1), int(size) if size else None) for name, before, size in parts}
    for name, size in sizes.items():
        if name not in chosen:
            index.append(0)
        elif chosen[name][1] is None:
            index.append(slice(None))
        else:  # (before)part: the axis is before x part x after, and the group runs over the middle
            before, part = chosen[name][0], chosen[name][1]
            assert part is not None
            after = size // (before * part)
            index.append(slice(0, after * part, after))
    return np.asarray(numbers[tuple(index)]).reshape(-1).tolist()


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]
