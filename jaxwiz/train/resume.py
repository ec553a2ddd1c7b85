"""Is this still the same run? What its states say of themselves, held against the config that asks to continue.

Each state carries the config that it was trained with, digests of its inputs, versions and mesh. What only changes
speed, memory, place or what is measured passes with a word. What would change the losses from there on is refused,
unless `--allow-change` names it: half a run at one learning rate and half at another is neither.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath

from jaxwiz import console, files
from jaxwiz.checkpoint.record import Retention, read_records
from jaxwiz.checkpoint.train_state import TrainCheckpoints
from jaxwiz.config import dump_config
from jaxwiz.sharding.agreement import code_facts, config_facts
from jaxwiz.sharding.processes import Processes
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.job import TrainJob

# A batch is the same on every mesh and in any number of micro-batches, but for the order of additions.
_HARMLESS = (
    *("out", "mesh", "batch.micro_batches", "intervals", "benchmark", "lora.save"),
    *(f"compute.{name}" for name in ("attention", "remat", "scan_layers", "loss_chunk_positions")),
)


class ChangedRunError(files.UserError):
    """A config that would continue another run; lists every difference and the remedies."""


def open_checkpoints(job: TrainJob, processes: Processes) -> TrainCheckpoints:
    """Returns the states of a run, each of which will say what it is."""
    intervals = job.config.intervals
    keep = Retention(intervals.keep_checkpoints, intervals.keep_hours, intervals.keep_best)
    about = {
        "config": dump_config(job.config),
        "inputs": _input_digests(job.config),
        "code": code_facts(),
        "mesh": dict(job.mesh.shape),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "steps": job.steps,
    }
    return TrainCheckpoints(_folder(job.config), keep, about, processes)


def continues(config: TrainConfig, allow_change: Sequence[str] = ()) -> bool:
    """Returns whether there are states that this config would continue from; it needs no devices.

    Args:
      config: of the run that is asked for.
      allow_change: keys whose change is accepted; see `require_same_run`.

    Raises:
      ChangedRunError: there are, of another run.
    """
    records = read_records(_folder(config))
    if records:
        _refused_and_harmless(records[-1], config, allow_change)
    return bool(records)


def require_same_run(saved: Mapping[str, Any], config: TrainConfig, allow_change: Sequence[str] = ()) -> None:
    """Returns if a state may be continued with `config`, after saying what differs.

    Args:
      saved: what the state says of itself, `TrainCheckpoints.about`.
      config: to go on with.
      allow_change: dotted keys whose change is accepted; a section's name covers all in it.

    Raises:
      ChangedRunError: other keys changed that change the run's meaning.
    """
    for line in _refused_and_harmless(saved, config, allow_change):
        console.say(f"train: goes on with a change: {line}")


def _refused_and_harmless(saved: Mapping[str, Any], config: TrainConfig, allow_change: Sequence[str]) -> list[str]:
    """Returns a line for each accepted difference; raises where one is not."""
    refused, accepted = {}, []
    before, now = _facts(saved["config"], saved["inputs"]), _facts(dump_config(config), _input_digests(config))
    for key in sorted(before.keys() | now.keys()):
        was, is_now = before.get(key, "absent"), now.get(key, "absent")
        if was == is_now:
            continue
        line = f"{key}: {was} -> {is_now}"
        if _is_below(key, _HARMLESS):
            accepted.append(line)
        elif _is_below(key, allow_change):
            accepted.append(f"{line} (allowed)")
        else:
            refused[key] = line
    versions = {name: value for name, value in code_facts().items() if saved["code"].get(name) != value}
    accepted += [f"{name}: {saved['code'].get(name, 'absent')} -> {value}" for name, value in versions.items()]
    if refused:
        raise ChangedRunError(
            "\n  ".join(
                (
                    f"{_folder(config)} holds the state of step {saved['step']} of a run with another config or other "
                    "inputs, and these change its meaning:",
                    *refused.values(),
                )
            )
            + f"\nSet them back to continue that run; accept them with --allow-change {' '.join(refused)}; or give "
            "another out"
            + ("" if config.intervals.checkpoint_folder is None else " and intervals.checkpoint_folder")
            + " for a new one"
        )
    return accepted


def _is_below(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _facts(config: dict[str, Any], inputs: Mapping[str, str]) -> dict[str, str]:
    """Returns a dumped config as {dotted key: JSON}, inputs by what they hold instead of where they lie."""
    return {**config_facts(config), **{key: json.dumps(f"contents {digest[:12]}") for key, digest in inputs.items()}}


def _input_digests(config: TrainConfig) -> dict[str, str]:
    """Returns {dotted key: SHA-256} of the inputs; a manifest holds those of its shards."""
    datasets = {"dataset": config.dataset, **{f"mix.{at}.path": one.path for at, one in enumerate(config.mix)}}
    manifests = {key: files.sha256_of_file(path / "manifest.json") for key, path in datasets.items()}
    return {**manifests, "checkpoint": files.sha256_of_file(config.checkpoint / "model.json")}


def _folder(config: TrainConfig) -> epath.Path:
    given = config.intervals.checkpoint_folder
    return epath.Path(Path(config.out).absolute() / "state") if given is None else epath.Path(given)
