"""The config of the evolve stage. Defaults are WizardLM's, as its paper states them; `configs/evolve/` has recipes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.llm.config import BackendConfig
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig

Detector = Literal["answered_instead", "asks_back"]


@section
class CallConfig:
    """How one kind of call is sampled.

    Attributes:
      max_new_tokens: most tokens of an answer; one that is cut there is rejected.
      temperature: 0 is greedy.
      top_p: nucleus size. The paper says 0.9, its authors' code 0.95.
    """

    max_new_tokens: Annotated[int, Field(gt=0)] = 2048
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9


@section
class EvolveConfig:
    """The evolve stage.

    Attributes:
      out: folder of the results.
      seeds: JSONL of {"instruction", "input"?, "output"?, "id"?}; missing outputs are asked for first.
      generator: who writes.
      operations: operation, as "folder/file" below the prompts folder, to its weight in the draw.
      rounds: how often the pool is evolved.
      items_per_round: evolve only that many items of the pool in each round; null: all.
      evolve: how evolutions are sampled.
      judge: how the equality judge is sampled.
      answer: how answers are sampled.
      unclear_verdict: what a judge's reply that is neither Equal nor Not Equal does to an evolution.
      detectors: cheap extra rules beyond the paper's four; each is counted apart.
      decontaminate: reject seeds and evolutions whose text holds a task of these benchmarks; empty: of none. The data
        stage's cleaning finds more, since it also runs answers.
      prompts: a folder laid out like `jaxwiz/evolve/prompts` whose files go before ours; null: ours alone.
      seed: decides every draw and every sampling seed.
    """

    out: Path
    seeds: Path
    generator: BackendConfig
    operations: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    rounds: Annotated[int, Field(gt=0)] = 4
    items_per_round: Annotated[int, Field(gt=0)] | None = None
    evolve: CallConfig = CallConfig()
    judge: CallConfig = CallConfig(max_new_tokens=16, temperature=0.0, top_p=1.0)
    answer: CallConfig = CallConfig()
    unclear_verdict: Literal["keep", "reject"] = "keep"
    detectors: tuple[Detector, ...] = ("answered_instead", "asks_back")
    decontaminate: tuple[BenchmarkConfig, ...] = (HumanEvalConfig(),)
    prompts: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0
