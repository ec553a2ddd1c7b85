"""The working state of a run: what it makes, how far it is, and how its results come out whole.

Everything lies in the folder `work` below `out`. `job.json` says what is being made: the config, and digests of every
input, of the tokenizer, of the template and of jaxwiz. A run that finds the same goes on where the last one ended; one
that finds another begins anew and says what differs. Finished parts are whole files, renamed one by one (see
`jaxwiz.files`).

Results are gathered in `work/result/`. Once all are there and on the disk, `work/complete` marks that only their moving
out is left, which a later run does too. The folder `work` is removed last.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxwiz import __version__, files
from jaxwiz.config import dump_config, input_paths
from jaxwiz.console import say
from jaxwiz.data.config import DataConfig
from jaxwiz.files import sha256_of_path

RESULTS = ("dataset", "rejects.jsonl", "cleaning.json", "cleaning.html", "manifest.json", "summary.txt")
OPTIONAL = ("rejects.jsonl", "cleaning.json", "cleaning.html")


@dataclasses.dataclass(frozen=True)
class Job:
    """Where the parts of a run lie.

    Attributes:
      out: the stage's folder.
    """

    out: Path

    @property
    def work(self) -> Path:
        """All working state."""
        return self.out / "work"

    @property
    def result(self) -> Path:
        """What will be moved to `out`."""
        return self.work / "result"

    @property
    def blocks(self) -> Path:
        """Encoded examples; see `jaxwiz.data.blocks`."""
        return self.work / "blocks"

    @property
    def dataset(self) -> Path:
        """The dataset while it is made."""
        return self.result / "dataset"

    @property
    def complete(self) -> bool:
        """Whether all results are made, and perhaps not yet moved."""
        return (self.work / "complete").exists()

    def publish(self) -> None:
        """Moves all results into `out`, in place of older ones, and removes the working state."""
        files.write_text(self.work / "complete", "")
        for name in RESULTS:
            files.move_into_place(self.result / name, self.out / name)
        for part in self.work.iterdir():  # what says that the run is complete goes last
            if part.is_dir():
                shutil.rmtree(part)
        shutil.rmtree(self.work)


def open_job(config: DataConfig, purpose: dict[str, str]) -> Job:
    """Returns the job of `config.out`: an interrupted one if it was for the same purpose, else a new one.

    Args:
      config: of the run.
      purpose: from `describe_purpose`.
    """
    job = Job(config.out)
    record = job.work / "job.json"
    try:
        before: Any = json.loads(record.read_text())
    except (OSError, ValueError):
        before = None
    if before == purpose:
        say(f"data: going on with the interrupted run in {config.out}")
        for leftover in job.work.rglob(".*.partial-*"):  # of files that were being written
            leftover.unlink()
        return job
    if before is not None:
        changed = sorted(name for name in before.keys() | purpose.keys() if before.get(name) != purpose.get(name))
        say(f"data: {', '.join(changed)} changed since the interrupted run in {config.out}; starting anew")
    shutil.rmtree(job.work, ignore_errors=True)
    for name in OPTIONAL:  # of an older run; this one may have none
        (job.out / name).unlink(missing_ok=True)
    files.write_text(record, json.dumps(purpose, indent=1) + "\n")
    return job


def describe_purpose(config: DataConfig, sources: Sequence[str], digests: dict[str, str]) -> dict[str, str]:
    """Returns all that the results depend on, by name.

    The engine has no say in them, nor do the places of files: an input counts by its content.

    Args:
      config: of the run.
      sources: SHA-256 of each source file.
      digests: of other inputs that are not simply files, by config key.
    """
    data = dump_config(config)
    del data["out"], data["engine"], data["sources"]
    purpose = {name: str(value) for name, value in _leaves(data)}
    for key, path in input_paths(config):
        if key not in digests and not key.startswith("sources."):
            purpose[key] = sha256_of_path(path)
    purpose |= {f"sources.{index}": digest for index, digest in enumerate(sources)}
    return {**purpose, **digests, "jaxwiz": __version__}


def _leaves(data: Any, prefix: str = "") -> list[tuple[str, Any]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if not children:
        return [(prefix, data)]
    return [leaf for name, child in children for leaf in _leaves(child, f"{prefix}.{name}" if prefix else str(name))]
