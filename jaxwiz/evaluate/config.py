"""The config of the evaluate stage."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.fanout.config import EngineConfig, LocalEngine
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig

SystemLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _+-]*$", max_length=40)]  # no dots: keys are dotted


@section
class SystemConfig:
    """One system to score.

    Attributes:
      completions: its answers, as the sample stage writes them.
      heldout: which held-out loss of `training` is this system's, that before or that after; none: neither.
    """

    completions: Path
    heldout: Literal["before", "after"] | None = None


@section
class EvaluateConfig:
    """Which completions to score, against which tasks, under which limits.

    Attributes:
      out: the folder for the results; work of another config or other inputs there is moved aside.
      samples: one file of completions to score, as the system "model"; a short form of `systems`.
      systems: what to score, by label, in the order of the report; the last is compared with the first.
      benchmark: the tasks.
      training: the train stage's summary.json, for losses and their curve in the report.
      k: the k of each pass@k to report; one above a task's number of samples is left out.
      timeout_s: seconds that one program may run, on an idle machine of reference speed; the sandbox gives a slower or
        busy one as much more. HumanEval+ and MBPP+ have limits of their own for each call, see `benchmark`.
      memory_limit_mib: address space of one program, in MiB.
      workers: programs at a time on each machine; none: as many as it has cores.
      engine: where programs run: on this machine, or on the nodes of a Ray cluster.
      unsafe_no_sandbox: run programs also where this machine can't keep them from files and network.
      page_text_mib: most text of samples that report.html holds, in MiB; it says what it leaves out.
    """

    out: Path = Path("runs/evaluate")
    samples: Path | None = None
    systems: dict[SystemLabel, SystemConfig] = dataclasses.field(default_factory=dict)
    benchmark: BenchmarkConfig = HumanEvalConfig()
    training: Path | None = None
    k: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1,)
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 3.0
    memory_limit_mib: Annotated[int, Field(ge=64)] = 4096
    workers: Annotated[int, Field(gt=0, le=256)] | None = None
    engine: EngineConfig = LocalEngine()
    unsafe_no_sandbox: bool = False
    page_text_mib: Annotated[int, Field(ge=0, le=1024)] = 16

    def __post_init__(self) -> None:
        """Requires either `samples` or `systems`."""
        if (self.samples is None) == (not self.systems):
            given = "both are given" if self.systems else "neither is given"
            raise ValueError(f"samples or systems: {given}; name one file with samples, or several with systems")

    def answers(self) -> dict[str, SystemConfig]:
        """Returns what to score by label, whichever way it was given."""
        return self.systems if self.samples is None else {"model": SystemConfig(completions=self.samples)}
