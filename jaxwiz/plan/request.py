"""What is asked of a plan, and what compiling its program found: the two things that pass between both processes."""

import dataclasses

from jaxwiz.model.config import ModelConfig
from jaxwiz.plan.chips import Topology
from jaxwiz.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class DecodeShape:
    """The decode step to plan for.

    Attributes:
      rows: sequences that are decoded together.
      slots: tokens that the cache holds for each.
    """

    rows: int
    slots: int


@dataclasses.dataclass(frozen=True)
class Request:
    """A step to compile for absent TPUs.

    Attributes:
      model: the model's shape.
      train: the recipe; its files need not exist.
      length: tokens of a row.
      topology: the chips.
      decode: compile the decode step of sampling instead, sharded by the recipe's mesh.
    """

    model: ModelConfig
    train: TrainConfig
    length: int
    topology: Topology
    decode: DecodeShape | None = None


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compiled step is and needs.

    Attributes:
      hlo: text of the optimised program.
      mesh: {axis: size}.
      places: (slice, x, y[, z]) of each device in the program's order.
      attention: the attention kernel.
      kinds: bytes of each device's memory by what the step takes: "weights", "optimizer", "batch" (or "cache").
      arguments: bytes of all arguments.
      peak: bytes of the most memory in use at any time, arguments included.
      xla_flops: XLA's own estimate, which counts a loop's body once.
      parameters: how many the model has.
      seconds: that compiling took.
    """

    hlo: str
    mesh: dict[str, int]
    places: list[tuple[int, ...]]
    attention: str
    kinds: dict[str, int]
    arguments: int
    peak: int
    xla_flops: float
    parameters: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A program that the compiler found no room for.

    Attributes:
      message: its own words.
      missing: bytes of each device's memory beyond what there is.
    """

    message: str
    missing: int
