"""Where a number came from: the code that scored, the settings that sampled, the model that answered.

What cannot be told is not left out: in its place stands {"unknown": "why"}. Settings and model are taken from what the
sample stage wrote beside its completions, and only if its record says that these are the completions it wrote.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import jaxwiz
from jaxwiz import files
from jaxwiz.config import read_config_file
from jaxwiz.files import UserError

MOST_BYTES_TO_HASH = 1 << 30
GIT_TIMEOUT_S = 10.0

_NOT_SETTINGS = ("stage", "out", "checkpoint", "benchmark", "sampling")


def unknown(why: str) -> dict[str, str]:
    """Returns what stands in a report in place of a value that cannot be told."""
    return {"unknown": why}


def is_unknown(value: Any) -> bool:
    """Says whether `value` is what `unknown` returns."""
    return isinstance(value, dict) and value.keys() == {"unknown"}


def code_commit() -> str | dict[str, str]:
    """Returns the git commit of the running jaxwiz, with "+changes" behind it where files differ from it."""
    root = Path(jaxwiz.__file__).parents[1]
    if not (root / ".git").exists():
        return unknown("jaxwiz runs from an installed package, not from a git checkout")
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", "jaxwiz")
    except (OSError, subprocess.SubprocessError) as error:
        return unknown(f"git gave no answer ({error.__class__.__name__})")
    return f"{commit}+changes" if changes else commit


def sampling_settings(completions: Path) -> dict[str, Any]:
    """Returns the settings that a file of completions was sampled with, flat: temperature, top_p, prompt_style, ..."""
    config = _sample_config(completions)
    if is_unknown(config):
        return config
    drawing = config.get("sampling")
    settings = {key: value for key, value in config.items() if key not in _NOT_SETTINGS}
    return settings | (drawing if isinstance(drawing, dict) else {})


def model_identity(completions: Path) -> dict[str, Any]:
    """Returns the checkpoint that wrote a file of completions: its folder, its hash and its own provenance."""
    config = _sample_config(completions)
    if is_unknown(config):
        return config
    folder = Path(str(config.get("checkpoint")))
    header = folder / "model.json"
    try:
        newer = header.stat().st_mtime_ns > completions.stat().st_mtime_ns
        source = json.loads(header.read_text(encoding="utf-8"))["provenance"]
    except (OSError, ValueError, KeyError, TypeError):
        return unknown(f"no checkpoint to be read at '{folder}'")
    if newer:
        return unknown(f"the checkpoint at '{folder}' was written after the completions, so it may be another one")
    return {"checkpoint": str(folder), "sha256": _checkpoint_digest(folder), "provenance": source}


def _sample_config(completions: Path) -> dict[str, Any]:
    """Returns the sample stage's resolved config, which stands beside the completions that it wrote."""
    path = completions.parent / "config.yaml"
    if not path.is_file():
        return unknown(f"no config.yaml beside {completions.name}; it was not written by `jaxwiz sample`")
    try:
        config = read_config_file(path)
    except UserError:
        return unknown(f"config.yaml beside {completions.name} cannot be read")
    if config.get("stage") != "sample":
        return unknown(f"config.yaml beside {completions.name} is not the sample stage's")
    results = _recorded_results(completions.parent)
    recorded = results.get(completions.name) if results is not None else None
    if results is not None and (recorded is None or recorded["sha256"] != files.sha256_of_file(completions)):
        return unknown(f"{completions.name} is not what the sample stage wrote there: its hash differs from step.json")
    return config


def _checkpoint_digest(folder: Path) -> str | dict[str, str]:
    """Returns `files.sha256_of_path(folder)`, from the record of the stage that wrote it where there is one."""
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    results = _recorded_results(folder.parent) or {}
    recorded = {path: results.get(path.relative_to(folder.parent).as_posix(), {}) for path in members}
    if all(entry.get("size") == path.stat().st_size for path, entry in recorded.items()):
        lines = (f"{path.relative_to(folder).as_posix()}\0{entry['sha256']}\n" for path, entry in recorded.items())
        return files.sha256_of_bytes("".join(lines).encode())
    size = sum(path.stat().st_size for path in members)
    if size > MOST_BYTES_TO_HASH:
        return unknown(f"{size >> 30} GiB and no step.json beside it that holds its hashes; too much to read again")
    return files.sha256_of_path(folder)


def _recorded_results(folder: Path) -> dict[str, Any] | None:
    """Returns {name: {"sha256", "size", ...}} from a finished stage's record; None if there is none."""
    try:
        record = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    finished = isinstance(record, dict) and record.get("status") == "finished"
    return record["results"] if finished else None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT_S)
    return done.stdout.strip()
