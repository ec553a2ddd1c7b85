"""The config of the evolve stage. Defaults are WizardLM's, as its paper states them; `configs/evolve/` has recipes."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxwiz.clean.config import NearConfig
from jaxwiz.config import section
from jaxwiz.fanout.config import EngineConfig, LocalEngine
from jaxwiz.llm.config import BackendConfig
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig

Detector = Literal["answered_instead", "asks_back", "added_words_only", "near_duplicate", "runs"]


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
class CallsConfig:
    """The kinds of calls.

    Attributes:
      evolve: how evolutions are sampled.
      judge: how the equality judge is sampled.
      answer: how answers are sampled.
      difficulty: how a judge is sampled who scores the difficulty of seeds and kept evolutions, from 1 to 10; null:
        they are not scored.
      together: ask for verdict and answer in one phase, so that a round is two batches. It saves time where a batch
        takes a day, and costs an answer for each evolution that is then judged equal.
    """

    evolve: CallConfig = CallConfig()
    judge: CallConfig = CallConfig(max_new_tokens=16, temperature=0.0, top_p=1.0)
    answer: CallConfig = CallConfig()
    difficulty: CallConfig | None = None
    together: bool = False


@section
class EliminateConfig:
    """What is eliminated beside the paper's four rules, each counted apart.

    Attributes:
      unclear_verdict: what a judge's reply that is neither Equal nor Not Equal does to an evolution.
      detectors: "answered_instead" (the evolver answered its parent), "asks_back" (it or the answer asks for a task),
        "added_words_only" (the parent's code and words stand there unchanged, with more words), "near_duplicate" (of a
        kept row of this or an earlier round, instruction and answer together), "runs" (the answer's Python doesn't
        parse, or fails or doesn't end when it is run in the sandbox).
      decontaminate: reject seeds and evolutions whose text holds a task of these benchmarks; empty: of none. The data
        stage's cleaning finds more, since it also runs answers on the tasks' tests.
      near: when two rows are near duplicates.
      timeout_s: seconds that an answer's code may run.
      workers: answers that run at a time; null: as many as there are cores.
      unsafe_no_sandbox: run answers also where they can't be confined.
    """

    unclear_verdict: Literal["keep", "reject"] = "keep"
    detectors: tuple[Detector, ...] = ("answered_instead", "asks_back")
    decontaminate: tuple[BenchmarkConfig, ...] = (HumanEvalConfig(),)
    near: NearConfig = NearConfig()
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    workers: Annotated[int, Field(gt=0, le=1024)] | None = None
    unsafe_no_sandbox: bool = False


@section
class PricesConfig:
    """What the generator's tokens cost.

    Attributes:
      input_per_million: of a million tokens of prompts.
      output_per_million: of a million generated tokens.
      batch_discount: share of the price that the Batch API takes off; it counts for `openai_batch` only.
      currency: of the prices; it is shown, nothing is converted.
    """

    input_per_million: Annotated[float, Field(ge=0)]
    output_per_million: Annotated[float, Field(ge=0)]
    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.5
    currency: str = "USD"


@section
class BudgetConfig:
    """How much a run may take, in all its parts from the first to the last; null: no limit.

    Attributes:
      max_tokens: tokens of prompts and answers together.
      max_cost: money, by `prices`.
    """

    max_tokens: Annotated[int, Field(gt=0)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None


@section
class EvolveConfig:
    """The evolve stage.

    Attributes:
      out: folder of the results.
      seeds: JSONL of {"instruction", "input"?, "output"?, "id"?}; missing outputs are asked for first.
      generator: who writes.
      operations: operation, as "folder/file" below the prompts folder, to its weight in the draw.
      quotas: operation to the largest share of a round's items that it may evolve, in (0, 1]; those above it draw again
        among the others.
      rounds: how often the pool is evolved; 0: seeds are answered and checked, and that is all.
      items_per_round: evolve only that many items of the pool in each round; null: all.
      calls: how calls are sampled.
      eliminate: what is rejected beyond the four rules.
      prices: what tokens cost; null: money is not counted.
      budget: when to stop. A stopped run continues when its budget is raised.
      engine: where calls are made: "local", or "ray" on all nodes of a cluster, each with `generator`'s limits.
      journal: file of answered calls; empty: journal.jsonl in `out`. A text, not a path of the config's inputs: the run
        writes it. Runs that share one never ask the same call twice.
      prompts: a folder laid out like `jaxwiz/evolve/prompts` whose files go before ours; null: ours alone.
      seed: decides every draw and every sampling seed.
    """

    out: Path
    seeds: Path
    generator: BackendConfig
    operations: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    quotas: dict[str, Annotated[float, Field(gt=0, le=1)]] = dataclasses.field(default_factory=dict)
    rounds: Annotated[int, Field(ge=0)] = 4
    items_per_round: Annotated[int, Field(gt=0)] | None = None
    calls: CallsConfig = CallsConfig()
    eliminate: EliminateConfig = EliminateConfig()
    prices: PricesConfig | None = None
    budget: BudgetConfig = BudgetConfig()
    engine: EngineConfig = LocalEngine()
    journal: str = ""
    prompts: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        unknown = sorted(self.quotas.keys() - self.operations.keys())
        if unknown:
            raise ValueError(f"quotas names {unknown[0]!r}, which is not among operations; correct the name")
        if self.quotas and not self.operations.keys() - self.quotas.keys():
            raise ValueError("quotas names every operation; at least one must be left for those above their quota")
        if self.budget.max_cost is not None and self.prices is None:
            raise ValueError("budget.max_cost needs prices; give input_per_million and output_per_million")
