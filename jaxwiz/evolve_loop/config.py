"""The config of `jaxwiz evolve-loop`: the steps of a round, as a pipeline has them, and when to stop."""

import dataclasses
from pathlib import Path
from typing import Annotated

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.pipeline import StepConfig, StepName
from jaxwiz.problems.config import BenchmarkConfig

BEST = "best"


@section
class LoopConfig:
    """Rounds of evolution, each fine-tuned and scored, until the score falls.

    Attributes:
      out: where everything goes: a folder for each of the steps of `once`, `round-1`, `round-2`, ..., and `best`.
      rounds: most rounds.
      baseline: begin with round 0: the seeds alone are trained on and scored.
      patience: stop after so many rounds in a row that score below the best one so far.
      development: the tasks that rounds are scored on. They must not overlap a reported benchmark.
      reported: the benchmarks whose scores are to be published.
      once: steps before the first round, for instance the conversion of the model.
      round: steps of a round in their order; one of them evolves, and one evaluates. "${name}" is an earlier step's
        folder in this round, or in `once`. The loop itself sets the evolve step's rounds and journal, and in sample and
        evaluate steps the benchmark; and it keeps the tasks of `development` and `reported` out of what evolve and data
        steps make.
    """

    out: Path
    rounds: Annotated[int, Field(gt=0)] = 4
    baseline: bool = True
    patience: Annotated[int, Field(gt=0)] = 1
    development: BenchmarkConfig
    reported: Annotated[tuple[BenchmarkConfig, ...], Field(min_length=1)]
    once: dict[StepName, StepConfig] = dataclasses.field(default_factory=dict)
    round: Annotated[dict[StepName, StepConfig], Field(min_length=1)]

    def __post_init__(self) -> None:
        """Requires names that don't clash, and one step of each stage that the loop itself looks at."""
        both = sorted(self.once.keys() & self.round.keys())
        if both:
            raise ValueError(f"once and round both have a step {both[0]!r}; rename one")
        if BEST in self.once:
            raise ValueError(f"once.{BEST}: the loop keeps the best round under this name; rename the step")
        for stage in ("evolve", "evaluate"):
            named = [name for name, step in self.round.items() if step.stage == stage]
            if len(named) != 1:
                raise ValueError(
                    f"round has {len(named)} steps of the stage {stage!r} ({', '.join(named) or 'none'}); "
                    "it must have exactly one"
                )
