"""What TPU chips and their networks can do, and how a pod slice's chips are wired: the constants of the roofline.

Sources, read in November 2026: the pages `https://cloud.google.com/tpu/docs/` v4, v5e, v5p and v6e for compute, memory
and bandwidths; TPU v4's links from Jouppi et al., arXiv 2304.01433, table 4; which axes of a torus are closed from
"TPU configurations" of the v4 and v5p pages and chapter 2 of `https://jax-ml.github.io/scaling-book`. The memory that a
program may use is what the compiler names when one does not fit: a part of the chip's is the runtime's.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

from jaxwiz.files import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPUs.

    Attributes:
      name: as topologies name it.
      peak_flops: dense bfloat16 FLOP/s.
      hbm_bytes: memory of the chip.
      usable_bytes: memory that a program may use.
      hbm_bandwidth: bytes/s.
      link_bandwidth: bytes/s in one direction of one link to a neighbour.
      dimensions: of the torus; two links each.
      closed_multiple: an axis of the torus is closed to a ring where its length is a multiple of this.
      dcn_bandwidth: bytes/s of one chip's share of its host's network, in one direction.
      chip_config: what the compiler calls the chip's mode in which both cores are one device, or None.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    usable_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    dimensions: int
    closed_multiple: int
    dcn_bandwidth: float
    chip_config: str | None = None


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        # v4's page names no network of hosts; v5p's 50 Gbit/s a chip is taken.
        Chip("v4", 275e12, 32 * GIB, int(30.75 * GIB), 1200e9, 50e9, 3, 4, 6.25e9, chip_config="megacore"),
        # 400 GB/s of both directions over 4 ports; 6.4 Tbit/s of network a pod of 256.
        Chip("v5e", 197e12, 16 * GIB, int(15.75 * GIB), 819e9, 50e9, 2, 16, 3.125e9),
        # 1,200 GB/s of both directions over 6 ports; 50 Gbit/s of network a chip.
        Chip("v5p", 459e12, 95 * GIB, int(95.74 * GIB), 2765e9, 100e9, 3, 4, 6.25e9),
        # 800 GB/s of both directions over 4 ports; 25.6 Tbit/s of network a pod of 256.
        Chip("v6e", 918e12, 32 * GIB, int(31.25 * GIB), 1640e9, 100e9, 2, 16, 12.5e9),
    )
}

MIN_FREE = 0.05  # of the usable memory, for what the compiler does not see: the runtime's buffers, fragmentation


@dataclasses.dataclass(frozen=True)
class Topology:
    """Pod slices of one shape.

    Attributes:
      chip: their chips.
      shape: chips along each axis of the torus.
      slices: how many slices, joined by the data-centre network.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """Returns the topology that a name such as "v5e:16x16" describes.

        Args:
          text: generation and shape.
          slices: how many of them.

        Raises:
          UserError: not a name of that form, or not a shape that the generation has.
        """
        match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
        known = ", ".join(CHIPS)
        if match is None or match[1] not in CHIPS:
            raise UserError(f"--topology {text!r}: must be GENERATION:SHAPE, such as v5e:16x16; generations: {known}")
        chip, shape = CHIPS[match[1]], tuple(int(size) for size in match[2].split("x"))
        if len(shape) != chip.dimensions or 0 in shape:
            example = "x".join(["4"] * chip.dimensions)
            raise UserError(
                f"--topology {text!r}: {chip.name}'s shape has {chip.dimensions} sizes of at least 1, such as "
                f"{chip.name}:{example}"
            )
        if slices < 1:
            raise UserError(f"--slices {slices}: must be at least 1")
        return cls(chip, shape, slices)

    @property
    def name(self) -> str:
        """Its name without the number of slices."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """How many chips there are in all."""
        return math.prod(self.shape) * self.slices

    def closed(self, axis: int) -> bool:
        """Returns whether an axis of the torus is a ring: its ends are joined."""
        return self.shape[axis] % self.chip.closed_multiple == 0

    def ingress(self, places: Iterable[Sequence[int]]) -> float:
        """Returns the bytes/s that the worst placed chip of a group can receive from the others over ICI.

        A chip inside a line or on a ring has two neighbours along that axis; the end of an open line has one, and a
        collective is as slow as its slowest member.

        Args:
          places: the coordinates of the group's chips.
        """
        links = 0
        for axis, along in enumerate(list(zip(*places, strict=True))[: len(self.shape)]):
            extent = max(along) - min(along) + 1
            if extent > 2 and extent == self.shape[axis] and self.closed(axis):
                links += 2
            elif extent > 1:
                links += 1
        return links * self.chip.link_bandwidth
