"""How one step runs: skip what is finished, resume what was interrupted, lose nothing.

A step is a stage run with one config into one folder, `config.out`. Beside its results stands `step.json`: a
fingerprint over stage, config, input contents and jaxwiz version, and a hash of every result. An equal fingerprint
with intact results means "finished: skip"; an equal fingerprint without them means "resume"; another fingerprint means
that the folder holds other work, which is moved aside, never deleted. But a stage that saves its state by the way, as
training does, says itself whether an unfinished run goes on with a changed config or is refused (`Stage.continues`).
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jaxwiz import __version__, files
from jaxwiz.config import ConfigError, Finding, dump_config, input_paths, missing_inputs, parse_config, to_yaml
from jaxwiz.console import say
from jaxwiz.sharding.agreement import code_facts, config_facts, require_agreement
from jaxwiz.sharding.processes import current
from jaxwiz.stages import Stage, load_symbol


def parse_stage_config(stage: Stage, data: dict[str, Any], source: str) -> Any:
    """Returns the validated config of `stage` from a plain mapping whose key `stage`, if given, must agree.

    Raises:
      ConfigError: every fault, or that the file belongs to another stage.
    """
    body = dict(data)
    named = body.pop("stage", stage.name)
    if named != stage.name:
        raise ConfigError(f"{source}: stage = {named!r}, but it is run as {stage.name!r}; use `jaxwiz {named}`")
    return parse_config(body, load_symbol(stage.config), source)


def check_step(stage: Stage, config: Any) -> list[Finding]:
    """Returns all that can be verified before running: inputs exist, then the stage's own findings."""
    missing = missing_inputs(config)
    return missing or load_symbol(stage.check)(config)


@dataclasses.dataclass(frozen=True)
class StepState:
    """Where a step stands: "finished", "interrupted", "absent", or "other" (the folder holds different work)."""

    status: Literal["finished", "interrupted", "absent", "other"]
    fingerprint: str


def step_state(stage: Stage, config: Any) -> StepState:
    """Returns where a step stands, judged by its fingerprint and the hashes of its results."""
    fingerprint = _fingerprint(stage, config)
    record = _read_record(config.out)
    if record is None:
        occupied = config.out.exists() and any(config.out.iterdir())
        return StepState("other" if occupied else "absent", fingerprint)
    if record["fingerprint"] != fingerprint:
        return StepState("other", fingerprint)
    finished = record["status"] == "finished" and _results_intact(config.out, record["results"])
    return StepState("finished" if finished else "interrupted", fingerprint)


def run_step(stage: Stage, config: Any, **options: Any) -> Literal["finished", "skipped"]:
    """Runs a stage into `config.out` unless it is already finished there.

    Where the processes of a job run it together, process 0 decides and keeps the record, and the others follow.

    Args:
      stage: the stage.
      config: its config.
      options: passed on to the stage: what the command line asks of this run and has no say in its results.

    Returns:
      "skipped" if fingerprint and results were intact, else "finished".

    Raises:
      ConfigError: an input is missing, or another process works in the folder.
      AgreementError: the processes of the job are not alike.
    """
    faults = missing_inputs(config)
    if faults:
        raise ConfigError("\n".join(fault.message for fault in faults))
    processes = current()
    if processes.count > 1:
        require_agreement(processes, {"config": config_facts(dump_config(config)), "code": code_facts()})
    if not processes.is_first:
        if processes.of_first("") == "finished":
            return "skipped"
        load_symbol(stage.run)(config, **options)
        return "finished"
    with _exclusive(config.out):
        state = step_state(stage, config)
        if state.status == "finished":
            processes.of_first(state.status)
            say(f"{stage.name}: skipped, {config.out} is finished and its inputs and config have not changed")
            return "skipped"
        if state.status == "other" and _continues(stage, config, options.get("allow_change", ())):
            state = dataclasses.replace(state, status="interrupted")
        if state.status == "other":
            _move_aside(config.out)
        if state.status == "interrupted":
            say(f"{stage.name}: resuming in {config.out}")
        began = time.time()
        _write_record(config.out, stage, state.fingerprint, "running", {}, 0.0)
        files.write_text(config.out / "config.yaml", f"stage: {stage.name}\n" + to_yaml(config))
        processes.of_first(state.status)
        load_symbol(stage.run)(config, **options)
        results = _describe_results(stage, config.out)
        _write_record(config.out, stage, state.fingerprint, "finished", results, round(time.time() - began, 1))
        return "finished"


def _continues(stage: Stage, config: Any, allow_change: Sequence[str]) -> bool:
    """Says whether the work in `config.out` goes on with a changed config; a finished run only where that is named."""
    record = _read_record(config.out)
    if not stage.continues or record is None or record["stage"] != stage.name:
        return False
    if record["status"] == "finished" and not allow_change:
        return False
    return load_symbol(stage.continues)(config, allow_change)


def _fingerprint(stage: Stage, config: Any) -> str:
    """Hashes stage, version, config, and what the input paths hold rather than where they lie.

    Left out of the config are `out`, and what has no say in the results, such as `engine`: where work is done.
    """
    data = dump_config(config)
    data.pop("out")
    for key, path in input_paths(config):
        *parents, last = key.split(".")
        section: Any = data
        for parent in parents:
            section = section[int(parent)] if isinstance(section, list) else section[parent]
        digest = _input_digest(path)
        if isinstance(section, list):
            section[int(last)] = digest
        else:
            section[last] = digest
    for key in stage.no_say:
        *parents, last = key.split(".")
        section = data
        for parent in parents:
            section = section[parent]
        section.pop(last, None)
    text = json.dumps({"stage": stage.name, "version": __version__, "config": data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _input_digest(path: Path) -> str:
    """Returns a content hash of an input; a finished step's results are not read again but taken from its record."""
    for folder in (path, *path.parents[:3]):
        record = _read_record(folder)
        if record is None or record["status"] != "finished":
            continue
        prefix = path.relative_to(folder).as_posix()
        inside = {
            name.removeprefix(prefix): entry["sha256"]
            for name, entry in record["results"].items()
            if prefix in (".", name) or name.startswith(f"{prefix}/")
        }
        if inside and _results_intact(folder, record["results"]):
            return files.sha256_of_bytes(json.dumps(inside, sort_keys=True).encode())
    return files.sha256_of_path(path) if path.exists() else "missing"


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "step.json").read_text())
    except (OSError, ValueError):
        return None


def _write_record(
    folder: Path, stage: Stage, fingerprint: str, status: str, results: dict[str, Any], seconds: float
) -> None:
    record = {
        "stage": stage.name,
        "status": status,
        "fingerprint": fingerprint,
        "jaxwiz": __version__,
        "seconds": seconds,
        "results": results,
    }
    files.write_text(folder / "step.json", json.dumps(record, indent=1) + "\n")


def _describe_results(stage: Stage, folder: Path) -> dict[str, dict[str, Any]]:
    described = {}
    for result in stage.results:
        path = folder / result
        if not path.exists():
            raise RuntimeError(f"stage {stage.name!r} ended without writing {path}; this is a bug in jaxwiz")
        members = [path] if path.is_file() else sorted(member for member in path.rglob("*") if member.is_file())
        for member in members:
            status = member.stat()
            described[member.relative_to(folder).as_posix()] = {
                "sha256": files.sha256_of_file(member),
                "size": status.st_size,
                "mtime_ns": status.st_mtime_ns,
            }
    return described


def _results_intact(folder: Path, results: dict[str, dict[str, Any]]) -> bool:
    """Says whether all results are there with the recorded contents; untouched files are not read again."""
    for name, entry in results.items():
        path = folder / name
        if not path.is_file():
            return False
        status = path.stat()
        if status.st_size != entry["size"]:
            return False
        if status.st_mtime_ns != entry["mtime_ns"] and files.sha256_of_file(path) != entry["sha256"]:
            return False
    return True


def _move_aside(folder: Path) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    say(f"{folder} holds the work of another config or other inputs; moved it to {aside}")


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    lock_path = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock_path.touch()
    except OSError as error:
        raise ConfigError(f"out = '{folder}': cannot write there ({error.strerror}); choose another folder") from None
    with open(lock_path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"out = '{folder}': another jaxwiz process is working in this folder; wait for it"
            ) from None
        yield
