"""The config of the sample stage: which checkpoint answers which benchmark, how it is asked and how it draws."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from jaxwiz.config import section
from jaxwiz.fanout.config import EngineConfig, LocalEngine
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig
from jaxwiz.problems.extract import ExtractMode
from jaxwiz.problems.prompting import PromptStyle
from jaxwiz.sample.requests import MAX_LOGIT_BIASES
from jaxwiz.sharding.mesh import MeshConfig

LogitBias = Annotated[dict[int, float], Field(max_length=MAX_LOGIT_BIASES)]
NumberType = Literal["float32", "bfloat16", "int8"]


@section
class SamplingConfig:
    """How the next token is chosen and when an answer ends.

    Attributes:
      temperature: 0 takes the most probable token; above, logits are divided by it and drawn from.
      top_k: draw from that many most probable tokens only; 0: from all.
      top_p: draw from the most probable tokens that together reach this probability only; 1: from all.
      min_p: draw from tokens at least this times as probable as the most probable one only; 0: from all.
      repetition_penalty: logits of tokens in prompt and answer so far are divided by it where positive and multiplied
        where negative (arXiv 1909.05858); 1 changes nothing.
      logit_bias: {token id: what is added to its logit}.
      max_new_tokens: most tokens of an answer; the end-of-text token counts.
      stop: texts that end an answer and are no part of it, beside those of template and prompt style.
      seed: each answer's own seed is derived from it, the task and the sample's number.
    """

    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    logit_bias: LogitBias = dataclasses.field(default_factory=dict)
    max_new_tokens: Annotated[int, Field(gt=0)] = 512
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def request_fields(self) -> dict[str, Any]:
        """Returns how tokens are drawn, as fields of an engine's request."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        return {**{name: getattr(self, name) for name in names}, "logit_bias": tuple(self.logit_bias.items())}


@section
class PromptsConfig:
    """Prompts or conversations of one's own instead of a benchmark.

    Attributes:
      kind: "prompts".
      path: a JSONL file; each line has "prompt", a user's message, or "messages", a list of {"role", "content"}, and
        may have an "id"; without one it is named by its number, "line-00001".
    """

    kind: Literal["prompts"] = "prompts"
    path: Path


@section
class SampleConfig:
    """The sample stage.

    Attributes:
      out: where completions.jsonl goes.
      checkpoint: the checkpoint folder to sample from.
      benchmark: the tasks to answer, or a file of prompts.
      template: the instruction template around each task: a built-in one's name; "tokenizer", the chat template that
        came with the checkpoint's tokenizer; the path of a .jinja file; or "none", the task's text as it is, for base
        models.
      prompt_style: how a task is worded: "wizardcoder", "chat" or "completion".
      extraction: how code is taken out of an answer: "wizardcoder", "robust" or "completion".
      samples_per_task: answers to each task; above 1 they only differ at a temperature above 0.
      sampling: how tokens are drawn and when an answer ends.
      batch_size: answers under way at once.
      dtype: of the weights; int8 has a scale for each output channel. `docs/sampling.md` has what each costs and gains.
      cache_dtype: of keys and values; null: bfloat16 where weights are, else float32.
      adapter: a folder of LoRA adapters to apply without merging; null: none.
      mesh: how weights and cache are split over devices; null: the first device alone.
      engine: where answers are generated: in this process, or on the nodes of a Ray cluster.
    """

    out: Path
    checkpoint: Path
    benchmark: Annotated[BenchmarkConfig | PromptsConfig, Field(discriminator="kind")] = HumanEvalConfig()
    template: str = "wizardcoder"
    prompt_style: PromptStyle = "wizardcoder"
    extraction: ExtractMode = "robust"
    samples_per_task: Annotated[int, Field(gt=0)] = 1
    sampling: SamplingConfig = SamplingConfig()
    batch_size: Annotated[int, Field(gt=0)] = 16
    dtype: NumberType = "float32"
    cache_dtype: NumberType | None = None
    adapter: Path | None = None
    mesh: MeshConfig | None = None
    engine: EngineConfig = LocalEngine()
