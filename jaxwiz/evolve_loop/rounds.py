"""The steps of every round, made from the loop's file: stage configs, wired by folder names and by the loop itself."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxwiz.config import ConfigError, parse_config, read_config_file
from jaxwiz.data.config import DataConfig
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve_loop.config import LoopConfig
from jaxwiz.pipeline import Step, resolve_step
from jaxwiz.problems.config import BenchmarkConfig
from jaxwiz.sample.config import SampleConfig

JOURNAL = "journal.jsonl"


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop whose steps are all validated.

    Attributes:
      config: its own.
      once: steps before the first round.
      rounds: the steps of each round that may be run, by its number.
    """

    config: LoopConfig
    once: list[Step]
    rounds: dict[int, list[Step]]


def load_loop(path: Path, overrides: Sequence[str]) -> Loop:
    """Returns what a loop's file describes.

    Args:
      path: the YAML.
      overrides: "key=value"; a first part that names a step addresses that step's config, in every round.

    Raises:
      ConfigError: the faults of the loop and of every step.
    """
    data = read_config_file(path)
    names = {name for key in ("once", "round") if isinstance(data.get(key), dict) for name in data[key]}
    own = [override for override in overrides if override.partition(".")[0] not in names]
    config = parse_config(read_config_file(path, own), LoopConfig, str(path))
    numbers = range(0 if config.baseline else 1, config.rounds + 1)
    faults: list[str] = []
    folders: dict[str, str] = {}
    once = _resolve(path, config, config.once, config.out, folders, overrides, None, faults)
    rounds = {
        number: _resolve(
            path, config, config.round, round_folder(config, number), dict(folders), overrides, number, faults
        )
        for number in numbers
    }
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))
    return Loop(config, once, rounds)


def round_folder(config: LoopConfig, number: int) -> Path:
    """Returns where a round's steps go."""
    return config.out / f"round-{number}"


def _resolve(
    path: Path,
    config: LoopConfig,
    steps: dict[str, Any],
    out: Path,
    folders: dict[str, str],
    overrides: Sequence[str],
    number: int | None,
    faults: list[str],
) -> list[Step]:
    """Returns some steps, adds their folders to `folders`, and their faults to `faults`."""
    resolved = []
    for name, step in steps.items():
        try:
            _, stage, stage_config = resolve_step(path, out / name, name, step, folders, overrides)
            if number is not None:
                stage_config = _fit(stage_config, name, number, config)
            resolved.append((name, stage, stage_config))
        except ConfigError as error:
            faults.append(str(error))
        folders[name] = str(out / name)
    return resolved


def _fit(stage_config: Any, name: str, number: int, loop: LoopConfig) -> Any:
    """Returns a step's config with what the loop sets in it."""
    unseen = (*loop.reported, loop.development)
    if isinstance(stage_config, EvolveConfig):
        eliminate = stage_config.eliminate
        eliminate = dataclasses.replace(eliminate, decontaminate=_together((*eliminate.decontaminate, *unseen)))
        journal = str(loop.out / JOURNAL)
        return dataclasses.replace(stage_config, rounds=number, journal=journal, eliminate=eliminate)
    if isinstance(stage_config, DataConfig) and stage_config.clean is not None:
        clean = stage_config.clean
        return dataclasses.replace(
            stage_config, clean=dataclasses.replace(clean, benchmarks=_together((*clean.benchmarks, *unseen)))
        )
    if isinstance(stage_config, SampleConfig | EvaluateConfig):
        if isinstance(stage_config, EvaluateConfig) and (len(stage_config.answers()) != 1 or 1 not in stage_config.k):
            raise ConfigError(f"round.{name}: must score one system with k = 1; that is what rounds are compared by")
        return dataclasses.replace(stage_config, benchmark=loop.development)
    return stage_config


def _together(benchmarks: Sequence[BenchmarkConfig]) -> tuple[BenchmarkConfig, ...]:
    """Returns each benchmark once; where several are parts of one, the whole of it."""
    found: dict[BenchmarkConfig, list[BenchmarkConfig]] = {}
    for benchmark in benchmarks:
        found.setdefault(dataclasses.replace(benchmark, ids=(), limit=None), []).append(benchmark)
    return tuple(parts[0] if len(set(parts)) == 1 else whole for whole, parts in found.items())
