"""The text of an optimised XLA program, read into computations and operations, and how often each of them runs.

Loops run their bodies many times, and the text of a TPU program does not say how often: it is read off the loop itself,
from its counter's first value, its step and its bound. A loop whose bound depends on data gets the caller's figure.

Grammar: XLA's HLO text, `https://openxla.org/xla/operation_semantics`. Nothing is evaluated; what is not needed to find
shapes, operands and called computations is left as text.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_DTYPE_BITS = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2", "f8e4m3b11fnuz"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 16),
    **dict.fromkeys(("s32", "u32", "f32"), 32),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 64),
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'known_trip_count"?\s*:\s*\{\s*"?n"?\s*:\s*"?(\d+)')
_SAME_VALUE = ("copy", "bitcast", "convert", "copy-done", "copy-start", "optimization-barrier")


class HloError(ValueError):
    """A program whose text is not understood."""


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """An array of a program.

    Attributes:
      dtype: as XLA spells it.
      dims: its shape.
      in_hbm: whether it lies in the chip's main memory; XLA moves small ones on the chip (memory spaces in layouts).
    """

    dtype: str
    dims: tuple[int, ...]
    in_hbm: bool = True

    @property
    def bytes(self) -> int:
        """Its size, without padding."""
        return math.prod(self.dims) * _DTYPE_BITS.get(self.dtype, 0) // 8


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
      name: unique in its computation.
      opcode: as XLA spells it.
      arrays: its results, tuples taken apart.
      operands: names of its operands.
      attributes: the rest of the line.
      literal: what stands in the parentheses of a constant or parameter.
    """

    name: str
    opcode: str
    arrays: tuple[ArrayType, ...]
    operands: tuple[str, ...]
    attributes: str
    literal: str = ""

    def attribute(self, key: str) -> str | None:
        """Returns the text of `key={...}`, without the braces, or None."""
        match = re.search(rf"\b{key}=\{{", self.attributes)
        if match is None:
            return None
        end = _matching(self.attributes, match.end() - 1)
        return self.attributes[match.end() : end]

    @property
    def called(self) -> list[str]:
        """Names of the computations that it runs."""
        names = _CALLED.findall(self.attributes)
        for branches in _BRANCHES.findall(self.attributes):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        return names


@dataclasses.dataclass(frozen=True)
class Computation:
    """A named list of operations.

    Attributes:
      name: its name.
      ops: {name: operation} in program order.
      root: name of the one whose result is the computation's.
    """

    name: str
    ops: dict[str, Op]
    root: str

    @functools.cached_property
    def parameters(self) -> dict[int, str]:
        """{number: name} of its parameters."""
        return {int(op.literal): op.name for op in self.ops.values() if op.opcode == "parameter"}


@dataclasses.dataclass(frozen=True)
class Execution:
    """An operation of a program, as it runs.

    Attributes:
      op: the operation.
      within: its computation.
      times: how often it runs in one run of the program.
      owner: the computation, not part of a fusion, in which it or the fusion that it belongs to stands.
      fused: whether it is part of a fusion: its operands and results then need not exist in memory.
    """

    op: Op
    within: Computation
    times: float
    owner: str
    fused: bool


class Program:
    """A program's computations.

    Attributes:
      computations: by name.
      entry: name of the one that is the program.
      guessed_loops: names of loops whose number of runs was not in the text, filled by `executions`.
    """

    def __init__(self, text: str, unknown_trips: int = 1) -> None:
        """Reads a program.

        Args:
          text: the whole HLO text.
          unknown_trips: how often a loop runs whose bound depends on data.
        """
        self.computations, self.entry = _parse(text)
        self.guessed_loops: set[str] = set()
        self._unknown_trips = unknown_trips
        self._callers: dict[str, tuple[Computation, Op]] = {}
        for computation in self.computations.values():
            for op in computation.ops.values():
                if op.opcode == "while":
                    for name in op.called:
                        self._callers[name] = (computation, op)

    def executions(self) -> Iterator[Execution]:
        """Yields every operation that runs, with how often; `to_apply` of reductions is left out."""
        yield from self._run(self.entry, 1.0, self.entry, False)

    def _run(self, name: str, times: float, owner: str, fused: bool) -> Iterator[Execution]:
        computation = self.computations[name]
        for op in computation.ops.values():
            yield Execution(op, computation, times, owner, fused)
            if op.opcode in ("fusion", "async-start"):
                for called in op.called:
                    yield from self._run(called, times, owner, fused or op.opcode == "fusion")
            elif op.opcode in ("while", "call", "conditional"):
                trips = self.trips(computation, op) if op.opcode == "while" else 1
                for called in op.called:
                    yield from self._run(called, times * trips, called, fused)

    def trips(self, computation: Computation, loop: Op) -> int:
        """Returns how often the body of a `while` runs."""
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        body = re.search(r"body=%?([\w.\-]+)", loop.attributes)
        if condition is None or body is None:
            raise HloError(f"{loop.name}: a while without condition or body")
        found = self._counted(self.computations[condition[1]], self.computations[body[1]])
        if found is None:
            self.guessed_loops.add(loop.name)
            return self._unknown_trips
        return found

    def _counted(self, condition: Computation, body: Computation) -> int | None:
        test = condition.ops[condition.root]
        while test.opcode in _SAME_VALUE:
            test = condition.ops[test.operands[0]]
        direction = re.search(r"direction=(\w+)", test.attributes)
        if test.opcode != "compare" or direction is None or direction[1] not in ("LT", "LE", "NE"):
            return None
        index = self._element(condition, test.operands[0])
        bound = self.constant(condition, test.operands[1])
        if index is None or bound is None:
            return None
        caller, loop = self._callers[body.name]
        first = self._constant_element(caller, loop.operands[0], index)
        step = self._step(body, index)
        if first is None or not step:
            return None
        return max(0, -(-(bound + (direction[1] == "LE") - first) // step))

    def _element(self, computation: Computation, name: str) -> int | None:
        """Returns which element of the loop's state an operation is, or None."""
        op = computation.ops[name]
        while op.opcode in _SAME_VALUE:
            op = computation.ops[op.operands[0]]
        index = re.search(r"index=(\d+)", op.attributes)
        if op.opcode != "get-tuple-element" or index is None:
            return None
        return int(index[1]) if computation.ops[op.operands[0]].opcode == "parameter" else None

    def _step(self, body: Computation, index: int) -> int | None:
        """Returns by how much a body raises an element of the loop's state."""
        root = body.ops[body.root]
        if root.opcode != "tuple":
            return None
        op = body.ops[root.operands[index]]
        while op.opcode in _SAME_VALUE:
            op = body.ops[op.operands[0]]
        if op.opcode == "fusion":
            return self._fused_step(body, op, index)
        if op.opcode != "add":
            return None
        counters = [name for name in op.operands if self._element(body, name) == index]
        steps = [self.constant(body, name) for name in op.operands if name not in counters]
        return steps[0] if len(counters) == 1 and len(steps) == 1 else None

    def _fused_step(self, body: Computation, fusion: Op, index: int) -> int | None:
        if not any(self._element(body, name) == index for name in fusion.operands):
            return None
        inner = self.computations[fusion.called[0]]
        steps = [
            self.constant(inner, name)
            for op in inner.ops.values()
            if op.opcode == "add" and op.arrays[0].dims == ()
            for name in op.operands
        ]
        found = [step for step in steps if step is not None]
        return found[0] if len(found) == 1 else None

    def constant(self, computation: Computation, name: str) -> int | None:
        """Returns an integer scalar's value where the text fixes it, through copies and loops that carry it along."""
        op = computation.ops[name]
        while op.opcode in _SAME_VALUE:
            op = computation.ops[op.operands[0]]
        if op.opcode == "constant":
            return int(op.literal) if re.fullmatch(r"-?\d+", op.literal) else None
        index = self._element(computation, op.name) if op.opcode == "get-tuple-element" else None
        if index is None or computation.name not in self._callers:
            return None
        caller, loop = self._callers[computation.name]
        body = re.search(r"body=%?([\w.\-]+)", loop.attributes)
        if body is None or not self._carried(self.computations[body[1]], index):
            return None
        return self._constant_element(caller, loop.operands[0], index)

    def _carried(self, body: Computation, index: int) -> bool:
        """Returns whether a loop's body hands an element of its state on unchanged."""
        root = body.ops[body.root]
        return root.opcode == "tuple" and self._element(body, root.operands[index]) == index

    def _constant_element(self, computation: Computation, name: str, index: int) -> int | None:
        op = computation.ops[name]
        while op.opcode in _SAME_VALUE:
            op = computation.ops[op.operands[0]]
        return self.constant(computation, op.operands[index]) if op.opcode == "tuple" else None


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    ops: dict[str, Op] = {}
    for line in _whole_lines(text):
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            name, ops, root = line.removeprefix("ENTRY").split()[0].lstrip("%"), {}, ""
            entry = name if line.startswith("ENTRY") else entry
        elif line == "}" and name:
            computations[name] = Computation(name, ops, root or next(reversed(ops), ""))
            name = ""
        elif name and " = " in line:
            op = _parse_op(line)
            ops[op.name] = op
            root = op.name if line.lstrip().startswith("ROOT") else root
    if not entry:
        raise HloError("no ENTRY computation: not an HLO program")
    return computations, entry


def _whole_lines(text: str) -> Iterator[str]:
    """Yields a program's lines, with those joined over which a kernel's metadata are spread."""
    whole = ""
    for line in text.splitlines():
        if line == "}" or not line.strip() or line.startswith(("%", "ENTRY", "  ", "HloModule")):
            yield whole
            whole = line
        else:
            whole += line
    yield whole


def _parse_op(line: str) -> Op:
    left, right = line.strip().split(" = ", 1)
    type_end = _matching(right, 0) + 1 if right.startswith("(") else right.index(" ")
    opcode_end = right.index("(", type_end)
    close = _matching(right, opcode_end)
    inside = right[opcode_end + 1 : close]
    arrays = tuple(
        ArrayType(dtype, tuple(int(size) for size in dims.split(",") if size), "S(" not in (layout or ""))
        for dtype, dims, layout in _ARRAY.findall(right[:type_end])
    )
    opcode = right[type_end:opcode_end].strip()
    operands = () if opcode in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", inside))
    return Op(left.removeprefix("ROOT ").lstrip("%"), opcode, arrays, operands, right[close + 1 :], inside)


def _matching(text: str, start: int) -> int:
    """Returns where the bracket that opens at `start` closes."""
    opening, closing = text[start], {"(": ")", "{": "}", "[": "]"}[text[start]]
    depth = 0
    for place in range(start, len(text)):
        if text[place] == opening:
            depth += 1
        elif text[place] == closing:
            depth -= 1
            if depth == 0:
                return place
    raise HloError(f"unbalanced {opening} in {text[start : start + 60]!r}")
