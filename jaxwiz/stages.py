"""The stages of jaxwiz: the single table that the command line, the README and the config tests derive from.

A stage is named by strings, so that this module imports none of them and `jaxwiz --help` stays instant.
"""

import dataclasses
import importlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the line.

    Attributes:
      name: the command, `jaxwiz NAME CONFIG.yaml`.
      summary: one line for `--help`.
      reads: what its config points at.
      results: names below `config.out` that make the stage's result; all else there is working state.
      config: "module:Class" of its config section.
      run: "module:function", (config) -> Path, resumable, deterministic in its config and inputs.
      check: "module:function", (config) -> list[Finding], quick and without side effects.
      by_many: whether the processes of a job run it together; such a stage finds them by `jaxwiz.sharding.processes`.
      no_say: dotted keys of its config that have no say in its results, so that a changed value resumes a run.
      continues: "module:function", (config, allow_change) -> bool: whether an unfinished run in `out` goes on with a
        changed config; raises a `UserError` where it must not. "": another config never continues a run.
    """

    name: str
    summary: str
    reads: str
    results: tuple[str, ...]
    config: str
    run: str
    check: str
    by_many: bool = False
    no_say: tuple[str, ...] = ("engine",)
    continues: str = ""


# How fast a generator may be asked, and when it is given up.
_PACE = tuple(
    f"generator.{name}"
    for name in (
        *("api_key_env", "api_key_file", "max_in_flight", "requests_per_minute", "tokens_per_minute", "timeout_s"),
        *("max_retries", "transport", "requests_per_file", "megabytes_per_file", "max_open_files", "poll_s"),
    )
)


def _stage(
    name: str,
    summary: str,
    reads: str,
    results: tuple[str, ...],
    config_class: str,
    by_many: bool = False,
    no_say: tuple[str, ...] = (),
    continues: str = "",
) -> Stage:
    run, config = f"jaxwiz.{name}.run", f"jaxwiz.{name}.config:{config_class}"
    no_say = ("engine", *no_say)
    return Stage(name, summary, reads, results, config, f"{run}:run", f"{run}:check", by_many, no_say, continues)


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        _stage(
            "evolve",
            "Evol-Instruct: seed instructions to a harder, wider set with answers",
            "seed JSONL, a text generator",
            ("evolved.jsonl", "rejected.jsonl", "statistics.json", "summary.txt"),
            "EvolveConfig",
            no_say=("budget", "prices", "journal", "eliminate.workers", *_PACE),
        ),
        _stage(
            "data",
            "template, tokenize, mask and pack instructions into ArrayRecord shards",
            "evolved JSONL, a tokenizer",
            ("dataset", "manifest.json", "summary.txt"),
            "DataConfig",
        ),
        _stage(
            "train",
            "fine-tune the Llama decoder on packed shards over the devices' mesh",
            "dataset, checkpoint",
            ("model", "summary.json", "summary.txt"),
            "TrainConfig",
            by_many=True,
            continues="jaxwiz.train.resume:continues",
        ),
        _stage(
            "convert",
            "Hugging Face folder, hub id or GGUF to a checkpoint, and a checkpoint to a Hugging Face folder",
            "weights and tokenizer in one format",
            ("model", "summary.txt"),
            "ConvertConfig",
        ),
        _stage(
            "sample",
            "generate completions for benchmark tasks with the JAX sampler",
            "checkpoint, a benchmark",
            ("completions.jsonl", "summary.txt"),
            "SampleConfig",
        ),
        _stage(
            "evaluate",
            "run completions against their tests in separate processes; pass@k and a report",
            "completions, a benchmark",
            ("verdicts.jsonl", "report.json", "report.html", "summary.txt"),
            "EvaluateConfig",
        ),
    )
}


def load_symbol(reference: str) -> Any:
    """Returns the object that "module:name" names, importing its module."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
