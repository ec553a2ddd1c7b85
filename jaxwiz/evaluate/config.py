"""The config of the evaluate stage."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.problems.config import HumanEvalConfig

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
      out: the folder for the results.
      systems: what to score, by label, in the order of the report; the last is compared with the first.
      benchmark: the tasks.
      training: the train stage's summary.json, for losses and their curve in the report.
      k: the k of each pass@k to report; one above a task's number of samples is left out.
      timeout_s: wall-clock seconds that one program may run.
      memory_limit_mib: address space of one program, in MiB.
      workers: programs at a time; none: as many as there are cores.
    """

    out: Path
    systems: Annotated[dict[SystemLabel, SystemConfig], Field(min_length=1)]
    benchmark: HumanEvalConfig = HumanEvalConfig()
    training: Path | None = None
    k: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1,)
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 3.0
    memory_limit_mib: Annotated[int, Field(ge=64)] = 4096
    workers: Annotated[int, Field(gt=0, le=256)] | None = None
