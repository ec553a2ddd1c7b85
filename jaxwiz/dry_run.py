"""`jaxwiz run PIPELINE --dry-run`: what every step will take, before any runs and without writing a file.

Each step's estimate rests on that of the steps before it: the evolver's forecast gives rows and tokens (of a run that
rejects nothing, so as many as there can be), these give packed rows, and these optimizer steps. Where a step says which
pod it is for (`pod`), its program is compiled for that pod as `jaxwiz plan` does. Finished steps say so, and a finished
data step is counted rather than estimated.
"""

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxwiz.console import say
from jaxwiz.data.config import DataConfig
from jaxwiz.data.sources import Row, read_source
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.forecast import dry_run as evolution_text
from jaxwiz.evolve.forecast import forecast, measured_tokens
from jaxwiz.evolve.journal import journal_path
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.evolve.pool import prompt_text, read_seeds
from jaxwiz.llm.protocol import estimate_tokens
from jaxwiz.pipeline import PodConfig, load_pipeline
from jaxwiz.sample.config import SampleConfig
from jaxwiz.stages import Stage
from jaxwiz.step import step_state
from jaxwiz.train.config import TrainConfig

FILL = 0.98  # of packed rows; what the data stage reaches on instructions
TEMPLATE_TOKENS = 40  # that a template puts around an example
PROGRAM_S = 0.0024  # of a program in the sandbox, on a core: benchmarks/results/sandbox.json
TASKS = {"humaneval": 164, "humaneval_plus": 164, "mbpp": 500, "mbpp_plus": 378}


class _Forecast:
    """What is known of the files that steps will make: examples and tokens, packed rows, answers."""

    def __init__(self, pods: dict[str, PodConfig]) -> None:
        self._pods = pods
        self._examples: dict[Path, tuple[int, int]] = {}  # by file: examples, tokens
        self._rows: dict[Path, tuple[int, int]] = {}  # by data folder: packed rows, tokens of each
        self._answers: dict[Path, int] = {}  # by completions file

    def lines(self, name: str, config: Any) -> Iterator[str]:
        """Yields what a step will take."""
        if isinstance(config, EvolveConfig):
            yield from self._evolve(config)
        elif isinstance(config, DataConfig):
            yield from self._data(config)
        elif isinstance(config, TrainConfig):
            yield from self._train(name, config)
        elif isinstance(config, SampleConfig):
            tasks = tasks_of(config.benchmark)
            self._answers[config.out / "completions.jsonl"] = answers = tasks * config.samples_per_task
            yield f"{answers:,} answers to {tasks} tasks, at most {answers * config.sampling.max_new_tokens:,} tokens"
        elif isinstance(config, EvaluateConfig):
            yield from self._evaluate(config)

    def _evolve(self, config: EvolveConfig) -> Iterator[str]:
        yield from evolution_text(config).splitlines()
        seeds = read_seeds(config.seeds)
        prompts = load_prompts(config.operations, config.prompts)
        stages = forecast(seeds, config, prompts, measured_tokens(journal_path(config)))
        evolutions = config.rounds * min(len(seeds), config.items_per_round or len(seeds))
        own = sum(estimate_tokens(prompt_text(seed) + seed.output) for seed in seeds)
        tokens = own + sum(stage.new_tokens for stage in stages if not stage.title.endswith(("judge", "difficulty")))
        self._examples[config.out / "evolved.jsonl"] = len(seeds) + evolutions, tokens

    def _data(self, config: DataConfig) -> Iterator[str]:
        manifest = config.out / "manifest.json"
        if manifest.exists():
            rows = json.loads(manifest.read_text())["splits"]["train"]["rows"]
            yield f"{rows:,} rows of {config.sequence_length:,} tokens to train on, made"
        else:
            examples = tokens = 0
            for source in config.sources:
                if not isinstance(source, Path):
                    yield f"{source.repo_id}: not counted, it is on the hub"
                    continue
                more = self._examples.get(source) or (count_examples(source) if source.exists() else (0, 0))
                examples, tokens = examples + more[0], tokens + more[1]
            tokens += TEMPLATE_TOKENS * examples
            rows = math.ceil(tokens * (1 - config.heldout_share) / (FILL * config.sequence_length))
            counted = f"about {examples:,} examples, {tokens:,} tokens"
            yield f"{counted}, {rows:,} rows of {config.sequence_length:,} to train on"
            yield "tokens: four bytes each; cleaning and elimination leave fewer"
        self._rows[config.out] = rows, config.sequence_length

    def _train(self, name: str, config: TrainConfig) -> Iterator[str]:
        rows, length = self._rows.get(config.dataset, (0, 2048))
        steps = config.steps
        if steps is None and rows and config.epochs is not None:
            steps = max(1, round(config.epochs * rows / config.batch.rows))
        length_of_run = f"{config.epochs:g} epoch(s), " if config.epochs else ""
        told = f"{steps:,} step(s)" if config.steps else f"about {steps:,} step(s)" if steps else "steps unknown yet"
        yield f"{length_of_run}batches of {config.batch.rows:,} rows: {told}"
        pod = self._pods.get(name)
        if pod is None:
            yield "no pod named; `jaxwiz check` estimates its memory on the devices at hand"
            return
        where = f"{pod.slices} x {pod.topology}" if pod.slices > 1 else pod.topology
        if importlib.util.find_spec("libtpu") is None:
            yield f"{where}: not planned, libtpu is not installed (pip install 'jaxwiz[plan]')"
            return
        yield from _planned(config, pod, where, length, steps)

    def _evaluate(self, config: EvaluateConfig) -> Iterator[str]:
        files = [system.completions for system in config.answers().values()]
        programs = sum(self._answers.get(file, tasks_of(config.benchmark)) for file in files)
        workers = config.workers or os.cpu_count() or 1
        yield (
            f"{programs:,} programs by {workers} worker(s): about {programs * PROGRAM_S / workers:,.0f} s, and at most "
            f"{programs * config.timeout_s / workers:,.0f} s if every one runs into its limit of {config.timeout_s:g} s"
        )


def describe_run(path: Path, overrides: Sequence[str]) -> Iterator[str]:
    """Yields the lines of a pipeline's dry run, step by step.

    Args:
      path: the pipeline's YAML.
      overrides: as `jaxwiz run` takes them.

    Raises:
      UserError: a config is faulty, or seeds, prompts or sources are unusable.
    """
    pipeline, steps = load_pipeline(path, overrides)
    pods = {name: step.pod for name, step in pipeline.steps.items() if step.pod is not None}
    known = _Forecast(pods)
    for number, (name, stage, config) in enumerate(steps, start=1):
        yield f"\n[{number}/{len(steps)}] {name} ({stage.name}){_standing(stage, config)}"
        for line in known.lines(name, config):
            yield f"    {line}"
        yield f"    writes {', '.join(str(config.out / result) for result in stage.results)}"


def tasks_of(benchmark: Any) -> int:
    """Returns how many tasks a benchmark has: its release's number, or fewer by `limit`."""
    tasks = TASKS[benchmark.kind]
    limit = getattr(benchmark, "limit", None)
    return min(tasks, limit) if limit else tasks


def count_examples(source: Path) -> tuple[int, int]:
    """Returns a source file's usable rows and about how many tokens their texts have."""
    examples = tokens = 0
    for row in read_source(source):
        if isinstance(row, Row):
            examples += 1
            tokens += sum(estimate_tokens(message.text) for message in row.messages)
    return examples, tokens


def _standing(stage: Stage, config: Any) -> str:
    status = step_state(stage, config).status
    return {
        "finished": ": finished, will be skipped",
        "interrupted": ": interrupted, will go on",
        "absent": "",
        "other": f": {config.out} holds other work, which will be moved aside",
    }[status]


def _planned(config: TrainConfig, pod: PodConfig, where: str, length: int, steps: int | None) -> Iterator[str]:
    """Yields what the compiled step of a pod says."""
    from jaxwiz.plan.build import Plan, make_plan, missing_text
    from jaxwiz.plan.chips import GIB, Topology
    from jaxwiz.plan.command import read_model
    from jaxwiz.plan.request import Request

    say(f"compiling the step for {where}; this takes one to three minutes")
    topology = Topology.parse(pod.topology, pod.slices)
    found = make_plan(Request(read_model(pod.model), config, length, topology))
    if not isinstance(found, Plan):
        yield f"{where}: DOES NOT FIT: {missing_text(found.missing)}"
        return
    roofline = found.roofline
    seconds = (roofline.step, roofline.serial)
    fits = "" if found.fits else "  DOES NOT FIT"
    yield f"{where}: {found.compiled.peak / GIB:.1f} GiB of a chip's memory, {found.free_share:.0%} free{fits}"
    mfu = f"MFU {roofline.mfu_serial:.0%} to {roofline.mfu_bound:.0%}"
    yield f"{where}: {seconds[0]:.2f} to {seconds[1]:.2f} s a step, {mfu}; see docs/plan.md for what that means"
    if steps:
        hours, chip_hours = (
            " to ".join(f"{steps * one / 3600 * chips:,.1f}" for one in seconds) for chips in (1, topology.chips)
        )
        yield f"{where}: {hours} h on {topology.chips} chips, that is {chip_hours} chip-hours"
