"""Pass@k during training: the sample and the evaluate stage, as they are, with the weights of the moment.

A point is a folder, `<out>/benchmark/step-00050`: `model/`, `sample/` and `evaluate/` as those stages write them, and
`result.json`, written last. A run that is killed and comes to the same step again has the same weights there (resuming
is exact), so it takes a finished result as it is and lets the stages go on with an unfinished one.

The stages are found by name, since stages do not import each other, and run in process 0, which has devices: a second
copy of the weights and a key/value cache need room there beside the training state. Nothing of that state is touched.
"""

import importlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from jaxwiz import console, files
from jaxwiz.checkpoint.weights import save_weights, tokenizer_folder
from jaxwiz.config import ConfigError, Finding, missing_inputs, parse_config, to_yaml
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.records import Completion, write_records
from jaxwiz.sharding.processes import current
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.job import TrainError, TrainJob
from jaxwiz.train.result import trained_model, trained_provenance
from jaxwiz.train.state import TrainState

SET_BY_US = {"sample": ("out", "checkpoint"), "evaluate": ("out", "samples", "systems", "benchmark", "training")}


class _Stages(NamedTuple):
    """The configs of both stages, with the folders of one point."""

    sample: Any
    evaluate: Any


def measure(job: TrainJob, state: TrainState, step: int) -> dict[str, float]:
    """Returns the scores of the weights after `step` steps, as {"pass@1": share of tasks, ...}.

    Every process calls it: all write the weights, and process 0 runs the stages while the others wait.

    Args:
      job: the run, with a `benchmark` in its config.
      state: after that step.
      step: how many steps were taken.

    Raises:
      UserError: as the stages raise it.
    """
    assert job.config.benchmark is not None
    folder = job.config.out / "benchmark" / f"step-{step:05d}"
    result, model = folder / "result.json", folder / "model"
    processes = current()
    measured, saved = json.loads(processes.of_first(json.dumps([result.exists(), model.exists()])))
    if not measured:
        if not saved:
            tokenizer = tokenizer_folder(job.config.checkpoint)
            weights, origin = trained_model(job, state), trained_provenance(job, step)
            template, base = job.manifest.template, job.config.checkpoint
            save_weights(model, weights, job.model, tokenizer, origin, template=template, base=base)
        if processes.is_first:
            _run_stages(job.config, folder, step)
    return json.loads(processes.of_first(result.read_text(encoding="utf-8") if processes.is_first else ""))


def _run_stages(config: TrainConfig, folder: Path, step: int) -> None:
    """Samples and evaluates with the weights in `folder`, and leaves `result.json` there."""
    assert config.benchmark is not None
    stages = _stages(config, folder, folder / "model", folder / "sample" / "completions.jsonl")
    for name, stage in stages._asdict().items():
        console.say(f"train: benchmark after step {step}: {name}")
        files.write_text(stage.out / "config.yaml", f"stage: {name}\n{to_yaml(stage)}")
        _module(name, "run").run(stage)
    report = json.loads((stages.evaluate.out / "report.json").read_text(encoding="utf-8"))
    files.write_text(folder / "result.json", json.dumps(_scores(report)) + "\n")
    if not config.benchmark.keep_weights:
        shutil.rmtree(folder / "model")


def require_benchmark(config: TrainConfig) -> None:
    """Returns if the benchmark of a run can be measured, as far as that can be known before.

    Raises:
      TrainError: with all that stands against it.
    """
    errors = [finding.message for finding in check_benchmark(config) if finding.level == "error"]
    if errors:
        raise TrainError("\n".join(errors))


def check_benchmark(config: TrainConfig) -> list[Finding]:
    """Returns what both stages' own checks find, with the base checkpoint and answers that are all empty."""
    if config.benchmark is None:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        answers = Path(scratch) / "completions.jsonl"
        try:
            stages = _stages(config, Path(scratch), config.checkpoint, answers)
            tasks = load_benchmark(stages.sample.benchmark).problems
        except files.UserError as error:
            return [Finding("error", str(error))]
        empty = [
            Completion(
                task_id=task, sample=sample, prompt="", raw="", completion="", finish_reason="stop", new_tokens=0
            )
            for task in tasks
            for sample in range(stages.sample.samples_per_task)
        ]
        write_records(answers, empty)
        return [
            Finding(finding.level, f"benchmark.{name}: {finding.message}")
            for name, stage in stages._asdict().items()
            for finding in missing_inputs(stage) or _module(name, "run").check(stage)
        ]


def _stages(config: TrainConfig, folder: Path, model: Path, completions: Path) -> _Stages:
    """Returns the configs of both stages for one point.

    Raises:
      ConfigError: all faults of both.
    """
    assert config.benchmark is not None
    faults: list[str] = []
    sample = _parse("sample", config.benchmark.sample, {"out": folder / "sample", "checkpoint": model}, faults)
    tasks = {"benchmark": config.benchmark.sample["benchmark"]} if "benchmark" in config.benchmark.sample else {}
    set_by_us = {"out": folder / "evaluate", "samples": completions, **tasks}
    evaluate = _parse("evaluate", config.benchmark.evaluate, set_by_us, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    return _Stages(sample, evaluate)


def _parse(name: str, given: dict[str, Any], set_by_us: dict[str, Any], faults: list[str]) -> Any:
    where = f"benchmark.{name}"
    faults += [f"{where}.{key}: is set by the train stage; leave it out" for key in SET_BY_US[name] if key in given]
    data = given | {key: str(value) if isinstance(value, Path) else value for key, value in set_by_us.items()}
    try:
        return parse_config(data, getattr(_module(name, "config"), f"{name.title()}Config"), where)
    except ConfigError as error:
        faults.append(str(error))
        return None


def _module(stage: str, door: str) -> Any:
    return importlib.import_module(f"jaxwiz.{stage}.{door}")


def _scores(report: dict[str, Any]) -> dict[str, float]:
    """Returns the scores of the only system of an evaluation, those of the base tests under names of their own."""
    (system,) = report["systems"].values()
    scores = {}
    for name, found in (("pass", system["pass_at"]), ("base_pass", system["base_pass_at"] or {})):
        for k, estimate in found.items():
            scores[f"{name}@{k}"] = estimate["value"]
    return scores
