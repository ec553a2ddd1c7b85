"""A pipeline config: named steps, each a stage with its config, run in order in processes of their own.

Steps are a mapping by name in the order of the file, so that a recipe may `extends` another and change a step of it.
A step's folder is `<out>/<step name>`; `${name}` in any string of a step's config stands for the folder of an earlier
step. All configs are validated before the first step starts. Separate processes return memory to the machine between
steps and keep evaluation apart from JAX.
"""

import dataclasses
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from jaxwiz import files
from jaxwiz.config import (
    ConfigError,
    Finding,
    dump_config,
    input_paths,
    parse_config,
    read_config_file,
    section,
    to_yaml,
)
from jaxwiz.config.loader import apply_override, merge
from jaxwiz.console import say
from jaxwiz.stages import STAGES, Stage
from jaxwiz.step import check_step, parse_stage_config, step_state


@section
class PodConfig:
    """The pod that a train step is meant for; a dry run plans it.

    Attributes:
      topology: generation and shape of a slice, for instance "v5e:16x16".
      slices: how many.
      model: the model's shape, as `jaxwiz plan --model` takes it.
    """

    topology: str
    model: Path
    slices: Annotated[int, Field(gt=0)] = 1


@section
class StepConfig:
    """One step of a pipeline.

    Attributes:
      stage: which stage it runs.
      use: a config file, relative to the pipeline file, that `set` is merged over; empty: `set` alone.
      set: config keys of the stage, without `out`.
      pod: of a train step: what `--dry-run` plans it for. The run itself takes whatever devices there are.
    """

    stage: str
    use: str = ""
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    pod: PodConfig | None = None


Step = tuple[str, Stage, Any]  # name, stage, validated config
StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


@section
class PipelineConfig:
    """A pipeline.

    Attributes:
      out: where its runs go; each step has a folder of its name below.
      steps: its steps by name, in the order in which they run.
    """

    out: Path
    steps: Annotated[dict[StepName, StepConfig], Field(min_length=1)]


def load_pipeline(path: Path, overrides: Sequence[str]) -> tuple[PipelineConfig, list[Step]]:
    """Returns a pipeline file's config and its steps as (name, stage, validated stage config).

    Args:
      path: the pipeline YAML.
      overrides: "key=value"; a first part that names a step addresses that step's config, as in train.steps=2.

    Raises:
      ConfigError: the faults of the pipeline and of every step.
    """
    data = read_config_file(path)
    data.pop("stage", None)
    names = data["steps"] if _is_pipeline(data) else {}
    own = [override for override in overrides if override.partition(".")[0] not in names]
    data = read_config_file(path, own)
    data.pop("stage", None)
    pipeline = parse_config(data, PipelineConfig, str(path))
    steps, faults = [], []
    earlier: dict[str, str] = {}
    for name, step in pipeline.steps.items():
        try:
            steps.append(resolve_step(path, pipeline.out / name, name, step, earlier, overrides))
        except ConfigError as error:
            faults.append(str(error))
        earlier[name] = str(pipeline.out / name)
    if faults:
        raise ConfigError("\n".join(faults))
    return pipeline, steps


def resolve_step(
    path: Path, out: Path, name: str, step: StepConfig, earlier: dict[str, str], overrides: Sequence[str]
) -> Step:
    """Returns a step of `path` with its config.

    Args:
      path: the file that names the step; its `use` is relative to it.
      out: the step's folder.
      name: its name.
      step: what the file says of it.
      earlier: folders of the steps before it, by name.
      overrides: "name.key=value"; those of other steps are left alone.

    Raises:
      ConfigError: its faults.
    """
    source = f"{path} step {name!r}"
    if step.stage not in STAGES:
        raise ConfigError(f"{source}: stage = {step.stage!r}: must be one of {', '.join(STAGES)}")
    prefix = f"{name}."
    own = [override.removeprefix(prefix) for override in overrides if override.startswith(prefix)]
    base = read_config_file(path.parent / step.use) if step.use else {}
    data = merge(base, step.set)
    for override in own:
        data = apply_override(data, override)
    data = _fill_in(data, earlier, source)
    data["out"] = str(out)
    stage = STAGES[step.stage]
    return name, stage, parse_stage_config(stage, data, source)


def _fill_in(value: Any, folders: dict[str, str], source: str) -> Any:
    """Returns `value` with every ${step} replaced by that step's folder."""
    if isinstance(value, dict):
        return {key: _fill_in(item, folders, source) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, folders, source) for item in value]
    if not isinstance(value, str):
        return value

    def folder_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in folders:
            known = ", ".join(folders) or "none"
            raise ConfigError(f"{source}: '{value}': ${{{name}}} names no earlier step; earlier steps: {known}")
        return folders[name]

    return re.sub(r"\$\{([^}]*)\}", folder_of, value)


def check_pipeline(path: Path, overrides: Sequence[str]) -> list[Finding]:
    """Returns the findings of every step; inputs that an earlier step will make are not missed."""
    pipeline, steps = load_pipeline(path, overrides)
    findings = []
    for name, stage, config in steps:
        waits = [
            str(source)
            for _, source in input_paths(config)
            if source.is_relative_to(pipeline.out) and not source.exists()
        ]
        if waits:
            findings.append(Finding("ok", f"{name}: config is valid; the rest waits for {', '.join(waits)}"))
        else:
            findings += [Finding(found.level, f"{name}: {found.message}") for found in check_step(stage, config)]
    return findings


def check_file(path: Path, overrides: Sequence[str]) -> list[Finding]:
    """Returns the findings about a config file of any stage, or of a pipeline; nothing is run or written.

    Raises:
      ConfigError: the config itself is faulty.
    """
    data = read_config_file(path)
    if _is_pipeline(data):
        return check_pipeline(path, overrides)
    stage = _stage_of(path, data)
    return check_step(stage, parse_stage_config(stage, read_config_file(path, overrides), str(path)))


def show_file(path: Path, overrides: Sequence[str]) -> str:
    """Returns, as YAML, a config file of any stage or of a pipeline with everything filled in; see `check_file`."""
    data = read_config_file(path)
    if not _is_pipeline(data):
        stage = _stage_of(path, data)
        config = parse_stage_config(stage, read_config_file(path, overrides), str(path))
        return f"stage: {stage.name}\n{to_yaml(config)}"
    pipeline, steps = load_pipeline(path, overrides)
    resolved = {
        name: StepConfig(
            stage=stage.name, set={key: value for key, value in dump_config(config).items() if key != "out"}
        )
        for name, stage, config in steps
    }
    return to_yaml(PipelineConfig(out=pipeline.out, steps=resolved))


def _is_pipeline(data: dict[str, Any]) -> bool:
    return isinstance(data.get("steps"), dict)  # the train stage has a key `steps` too, a number


def _stage_of(path: Path, data: dict[str, Any]) -> Stage:
    stage = STAGES.get(data.get("stage", ""))
    if stage is None:
        raise ConfigError(f"{path}: stage = {data.get('stage')!r}: must be one of {', '.join(STAGES)}; add the line")
    return stage


def run_pipeline(path: Path, overrides: Sequence[str]) -> int:
    """Runs every step that is not finished, each in a process of its own, and prints what came out.

    Returns:
      0, or the exit code of the step that failed; running again continues there.

    Raises:
      ConfigError: a config is faulty, or an input is missing that no step makes; nothing has been run.
    """
    pipeline, steps = load_pipeline(path, overrides)
    require_inputs(pipeline.out, steps)
    code = run_steps(steps, pipeline.out / "configs")
    if code == 0:
        _print_summaries(pipeline, steps)
    return code


def run_steps(steps: Sequence[Step], configs: Path, label: str = "") -> int:
    """Runs the steps that are not finished, each in a process of its own.

    Args:
      steps: in their order.
      configs: folder in which each step's config is written.
      label: before each step's title.

    Returns:
      0, or the exit code of the step that failed; the steps after it have not been run.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the step ends with us
    for number, (name, stage, config) in enumerate(steps, start=1):
        title = f"{label}[{number}/{len(steps)}] {name} ({stage.name})"
        if step_state(stage, config).status == "finished":
            say(f"{title}: skipped, inputs and config have not changed")
            continue
        say(f"{title}")
        step_file = configs / f"{name}.yaml"
        files.write_text(step_file, f"stage: {stage.name}\n" + to_yaml(config))
        code = subprocess.run([sys.executable, "-m", "jaxwiz.cli", stage.name, str(step_file)], check=False).returncode
        if code != 0:
            say(f"{title} failed with exit code {code}. Finished steps are kept; the same command continues here.")
            return code if code > 0 else 128 - code
    return 0


def require_inputs(out: Path, steps: Sequence[Step]) -> None:
    """Raises ConfigError naming every input of `steps` that is missing and that no step makes below `out`."""
    missing = [
        f"{name}.{key} = '{source}': no such file or folder; create it or correct the key"
        for name, _, config in steps
        for key, source in input_paths(config)
        if not source.exists() and not source.is_relative_to(out)
    ]
    if missing:
        raise ConfigError("\n".join(missing))


def _print_summaries(pipeline: PipelineConfig, steps: list[Step]) -> None:
    for name, _, config in steps:
        summary = config.out / "summary.txt"
        print(f"\n== {name} ==\n{summary.read_text(encoding='utf-8').rstrip()}")
    reports = [config.out / "report.html" for _, stage, config in steps if "report.html" in stage.results]
    for report in reports:
        print(f"\nReport: {report.resolve()}")
