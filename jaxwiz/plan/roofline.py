"""How long a step takes at least, and so what part of the chips' peak it can use at most.

    compute       = FLOPs of the program / peak bf16 FLOP/s
    HBM           = bytes of HBM / HBM bytes/s
    interconnect  = ICI bytes / (links a chip can receive on x bytes/s of a link), rings by their fullest link
    network       = DCN bytes / bytes/s of a chip's share of its host's network
    step          >= max(compute, HBM, interconnect, network)          all of it at the same time
    MFU bound     = model FLOPs / (peak x step)

A bound, not a forecast: no chip reaches its peak in every product, and not all traffic hides behind arithmetic.
`serial` is the other end, compute and all traffic between chips one after another.
"""

import dataclasses

from jaxwiz.plan.chips import Chip
from jaxwiz.plan.traffic import Traffic


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Least seconds of one step on each resource.

    Attributes:
      compute: of matrix units.
      hbm: of the chip's memory.
      ici: of the links between chips.
      dcn: of the network between slices.
      model_seconds: what the model's own FLOPs take at peak.
    """

    compute: float
    hbm: float
    ici: float
    dcn: float
    model_seconds: float

    @property
    def step(self) -> float:
        """Seconds of a step in which everything overlaps."""
        return max(self.compute, self.hbm, self.ici, self.dcn)

    @property
    def serial(self) -> float:
        """Seconds of a step in which no traffic between chips overlaps with arithmetic."""
        return max(self.compute, self.hbm) + self.ici + self.dcn

    @property
    def binds(self) -> str:
        """The resource that the step waits for."""
        seconds = {"compute": self.compute, "HBM": self.hbm, "interconnect": self.ici, "network": self.dcn}
        return max(seconds, key=lambda name: seconds[name])

    @property
    def mfu_bound(self) -> float:
        """The largest possible model FLOPs utilisation, 0 to 1."""
        return self.model_seconds / self.step

    @property
    def mfu_serial(self) -> float:
        """The utilisation without any overlap."""
        return self.model_seconds / self.serial


def roofline(traffic: Traffic, chip: Chip, model_flops: float) -> Roofline:
    """Returns the least time of a step.

    Args:
      traffic: what the program takes on each device.
      chip: what a device can do.
      model_flops: of the model itself on each device: no recomputation, attention over half the square.
    """
    return Roofline(
        compute=traffic.flops / chip.peak_flops,
        hbm=traffic.hbm_bytes / chip.hbm_bandwidth,
        ici=traffic.ici_seconds,
        dcn=sum(traffic.dcn_bytes.values()) / chip.dcn_bandwidth,
        model_seconds=model_flops / chip.peak_flops,
    )
