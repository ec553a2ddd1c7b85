"""What the data stage can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.clean.config import CleanConfig
from jaxwiz.config import section
from jaxwiz.data.hub import HubDataset
from jaxwiz.fanout.config import EngineConfig, LocalEngine


@section
class DataConfig:
    """From instructions with answers to packed rows of tokens.

    Attributes:
      out: folder for `dataset/`, `manifest.json` and `summary.txt`; `rejects.jsonl` if rows were left out, and
        `cleaning.json` and `cleaning.html` if they were cleaned.
      sources: files, or data sets on a hub, of instructions with answers: evolved and seed JSONL, Alpaca's JSON and
        JSONL ("instruction", "input", "output"), conversations ("messages"), all of these also as Parquet. What each
        row is, is told by its content.
      tokenizer: folder of the tokenizer: a checkpoint, a Hugging Face folder, or a folder with tokenizer.json or
        tokenizer.model.
      template: how instruction and answer are laid out: the name of a built-in template; "tokenizer" for the
        tokenizer's own chat template; or the path of a Jinja chat template that ends in ".jinja".
      sequence_length: T, tokens in a row; examples are packed into rows of this length.
      pack_window: examples of a split that are packed together, in the order of the sources. A larger window fills
        rows better, and examples from further apart come to share a row.
      over_long: what becomes of an example longer than a row: "drop" it, "truncate_prompt" (cut the end of its input,
        then of its instruction; never the answer), or "error". Dropped and cut examples are counted and listed.
      heldout_share: part of the lineages kept for the "heldout" split, chosen by a hash of the root instruction, so
        that a seed and all that was evolved from it are on one side. 0: no such split.
      rows_per_shard: rows in a shard file; the tokens of one are in memory at a time.
      max_rejected_share: the run fails if more than this part of the source rows is unusable.
      seed: varies which lineages are held out.
      clean: which rows are left out as repeated, or as tasks of a benchmark; null: none.
      engine: where rows are cleaned and encoded, and shards written: in this process, or on the nodes of a Ray cluster.
        The results are the same, byte for byte.
    """

    out: Path
    sources: Annotated[tuple[Path | HubDataset, ...], Field(min_length=1)]
    tokenizer: Path
    template: str = "wizardcoder"
    sequence_length: Annotated[int, Field(ge=8)] = 2048
    pack_window: Annotated[int, Field(gt=0)] = 16384
    over_long: Literal["drop", "truncate_prompt", "error"] = "drop"
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rows_per_shard: Annotated[int, Field(gt=0)] = 8192
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    seed: Annotated[int, Field(ge=0)] = 0
    clean: CleanConfig | None = None
    engine: EngineConfig = LocalEngine()
