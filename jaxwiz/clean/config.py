"""What cleaning can be told; a section of the data stage's config."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.problems.config import (
    BenchmarkConfig,
    HumanEvalConfig,
    HumanEvalPlusConfig,
    MbppConfig,
    MbppPlusConfig,
)

Tier = Literal["equal", "contained", "runs", "example", "tests"]
TIERS: tuple[Tier, ...] = get_args(Tier)


@section
class NearConfig:
    """When two rows are near duplicates: instruction and answer together, compared as sets of runs of words.

    Attributes:
      run_words: words in a run.
      permutations: of MinHash: more estimate similarity better; the standard error is at most 0.5 / sqrt(permutations).
      threshold: rows are near duplicates from this estimated Jaccard similarity on.
    """

    run_words: Annotated[int, Field(gt=0, le=20)] = 5
    permutations: Annotated[int, Field(ge=16, le=1024)] = 256
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7


@section
class CleanConfig:
    """Which rows are kept from training: repeated ones, and those that hold a benchmark's task.

    Attributes:
      exact: leave out rows whose normalised instruction and answer an earlier row has.
      near: leave out rows that are nearly an earlier one; null: don't look for these.
      benchmarks: whose tasks must not be trained on; empty: none. HumanEval comes with a package, the others are
        downloaded once or read from their `path`; one that can't be had is an error.
      tiers: which tests for tasks are made, in this order: "equal" (a whole text), "contained" (a text within),
        "runs" (of words in common), "example" (function name and a documented value), "tests" (answers are run).
      call_timeout_s: seconds that an answer's function may take for one call of a benchmark's tests.
      workers: programs at a time on each node; null: as many as there are cores.
      unsafe_no_sandbox: run answers also where they can't be confined.
    """

    exact: bool = True
    near: NearConfig | None = NearConfig()
    benchmarks: tuple[BenchmarkConfig, ...] = (
        HumanEvalConfig(),
        HumanEvalPlusConfig(),
        MbppConfig(),
        MbppPlusConfig(),
    )
    tiers: tuple[Tier, ...] = TIERS
    call_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    workers: Annotated[int, Field(gt=0, le=1024)] | None = None
    unsafe_no_sandbox: bool = False
