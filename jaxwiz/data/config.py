"""What the data stage can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section


@section
class DataConfig:
    """From instructions with answers to packed rows of tokens.

    Attributes:
      out: folder for `dataset/`, `manifest.json`, `summary.txt`, and `rejects.jsonl` if rows were left out.
      sources: files of instructions with answers: evolved JSONL, seed JSONL, or Alpaca's JSON or JSONL ("instruction",
        "input", "output"). What each row is, is told by its content.
      tokenizer: folder of the tokenizer: a checkpoint, a Hugging Face folder, or a folder with tokenizer.json or
        tokenizer.model.
      template: how instruction and answer are laid out.
      sequence_length: T, tokens in a row; examples are packed into rows of this length.
      over_long: what becomes of an example longer than a row: "drop" it, "truncate_prompt" (cut the end of its input,
        then of its instruction; never the answer), or "error". Dropped and cut examples are counted and listed.
      heldout_share: part of the lineages kept for the "heldout" split, chosen by a hash of the root instruction, so
        that a seed and all that was evolved from it are on one side. 0: no such split.
      rows_per_shard: rows in a shard file.
      max_rejected_share: the run fails if more than this part of the source rows is unusable.
      seed: varies which lineages are held out.
    """

    out: Path
    sources: Annotated[tuple[Path, ...], Field(min_length=1)]
    tokenizer: Path
    template: Literal["wizardcoder", "alpaca", "chatml"] = "wizardcoder"
    sequence_length: Annotated[int, Field(ge=8)] = 2048
    over_long: Literal["drop", "truncate_prompt", "error"] = "drop"
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rows_per_shard: Annotated[int, Field(gt=0)] = 8192
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    seed: Annotated[int, Field(ge=0)] = 0
