"""A plan: one compiled step with all that is worked out from it."""

import dataclasses
from typing import Any

from jaxwiz.model.flops import forward_flops_per_token, train_flops_per_token
from jaxwiz.plan.chips import GIB, MIN_FREE
from jaxwiz.plan.compiler import compile_step
from jaxwiz.plan.hlo import Program
from jaxwiz.plan.minimum import FORMULA, least_bytes
from jaxwiz.plan.request import Compiled, OutOfMemory, Request
from jaxwiz.plan.roofline import Roofline, roofline
from jaxwiz.plan.traffic import Traffic, measure


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step needs and takes on a topology.

    Attributes:
      request: what was asked.
      compiled: the program, with its memory.
      traffic: what it computes and moves on each device.
      model_flops: of the model itself, on each device.
      roofline: the least time.
      least: {what: bytes each device must receive}, empty for a decode step.
    """

    request: Request
    compiled: Compiled
    traffic: Traffic
    model_flops: float
    roofline: Roofline
    least: dict[str, float]

    @property
    def free_share(self) -> float:
        """The part of the usable memory that stays free, 0 to 1."""
        return 1 - self.compiled.peak / self.request.topology.chip.usable_bytes

    @property
    def fits(self) -> bool:
        """Whether enough of it does."""
        return self.free_share >= MIN_FREE

    @property
    def memory(self) -> dict[str, int]:
        """{kind: bytes on each device}; "activations and temporaries" is what the peak has beside the arguments."""
        rest = self.compiled.arguments - sum(self.compiled.kinds.values())
        return self.compiled.kinds | {
            "padding and scalars": rest,
            "activations and temporaries": self.compiled.peak - self.compiled.arguments,
        }

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        request, chip, traffic = self.request, self.request.topology.chip, self.traffic
        train = request.train
        line = self.roofline
        return {
            "topology": request.topology.name,
            "slices": request.topology.slices,
            "chips": request.topology.chips,
            "step": "train" if request.decode is None else "decode",
            "parameters": self.compiled.parameters,
            "mesh": self.compiled.mesh,
            "attention": self.compiled.attention,
            "remat": train.compute.remat,
            "batch_rows": train.batch.rows if request.decode is None else request.decode.rows,
            "micro_batches": train.batch.micro_batches,
            "row_tokens": request.length if request.decode is None else request.decode.slots,
            "memory_bytes": self.memory,
            "peak_bytes": self.compiled.peak,
            "usable_bytes": chip.usable_bytes,
            "free_share": self.free_share,
            "fits": self.fits,
            "model_flops": self.model_flops,
            "program_flops": traffic.flops,
            "xla_flops_loops_once": self.compiled.xla_flops,
            "hbm_bytes": traffic.hbm_bytes,
            "ici_bytes": traffic.ici_bytes,
            "dcn_bytes": traffic.dcn_bytes,
            "least_bytes": self.least,
            "least_formula": FORMULA,
            "seconds": {
                "compute": line.compute,
                "hbm": line.hbm,
                "interconnect": line.ici,
                "network": line.dcn,
                "step": line.step,
                "serial": line.serial,
            },
            "binds": line.binds,
            "mfu_bound": line.mfu_bound,
            "mfu_serial": line.mfu_serial,
            "chip": dataclasses.asdict(chip),
            "loops_of_unknown_length": len(traffic.guessed_loops),
            "compile_seconds": self.compiled.seconds,
        }


def make_plan(request: Request) -> Plan | OutOfMemory:
    """Returns the plan of a step, or by how much the compiler found no room for it.

    Raises:
      UserError: as `compile_step` raises it.
    """
    compiled = compile_step(request)
    if isinstance(compiled, OutOfMemory):
        return compiled
    return plan_of(request, compiled)


def plan_of(request: Request, compiled: Compiled) -> Plan:
    """Returns what follows from a compiled step."""
    chunks = -(-request.length // min(request.train.compute.loss_chunk_positions, request.length))
    # The two loops whose length depends on data: chunks of the loss (at most all), and tokens of a decode call (one).
    program = Program(compiled.hlo, unknown_trips=chunks if request.decode is None else 1)
    traffic = measure(program, request.topology, compiled.places)
    model_flops = _model_flops(request)
    least = least_bytes(request, compiled.mesh) if request.decode is None else {}
    return Plan(request, compiled, traffic, model_flops, roofline(traffic, request.topology.chip, model_flops), least)


def missing_text(missing: int) -> str:
    """Returns how much memory is missing, for people."""
    return f"{missing / GIB:.2f} GiB a device are missing" if missing else "memory is missing"


def _model_flops(request: Request) -> float:
    """Returns the model's FLOPs of one step on each device: of whole rows, each one segment."""
    if request.decode is not None:
        return (
            forward_flops_per_token(request.model, request.decode.slots) * request.decode.rows / request.topology.chips
        )
    per_token = train_flops_per_token(request.model, (request.length + 1) / 2, request.train.lora)
    return per_token * request.train.batch.rows * request.length / request.topology.chips
