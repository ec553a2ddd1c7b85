"""What makes a folder a complete, intact training state: what it is, a checksum of every file, and which ones stay.

    <folder>/<step>/arrays/           Orbax's files
    <folder>/<step>/files-<k>.json    size and SHA-256 of the files that process k wrote
    <folder>/<step>/checkpoint.json   what this is: step, config, code, mesh, inputs; written last, which completes it

Orbax checksums its indexes but not the values: a bit flipped in them is restored without a word. So each process sums
what it wrote, and everything is compared before it is restored. A folder without `checkpoint.json` is a save that was
cut short. All of it goes through `etils.epath`, so a folder may as well be `gs://bucket/path`.
"""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Iterable
from typing import Any

from etils import epath

FORMAT = "jaxwiz.train_state.v1"
_RECORD = "checkpoint.json"
_BLOCK_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which complete states stay: the union of what these keep.

    Attributes:
      newest: so many of the newest.
      hours: all that are younger than this; None: age keeps none.
      best: so many with the lowest held-out loss, of those saved at a step that has one.
    """

    newest: int
    hours: float | None = None
    best: int = 0

    def kept(self, records: Iterable[dict[str, Any]], now: float) -> set[int]:
        """Returns the steps that stay, of the records of all complete states; `now` in seconds since 1970."""
        by_step = sorted(records, key=lambda record: record["step"], reverse=True)
        measured = [record for record in by_step if "heldout_loss" in record["metrics"]]
        best = sorted(measured, key=lambda record: record["metrics"]["heldout_loss"])[: self.best]
        young = [
            record for record in by_step if self.hours is not None and now - record["saved_at"] < self.hours * 3600
        ]
        return {record["step"] for record in (*by_step[: self.newest], *best, *young)}


def step_folders(folder: epath.Path) -> dict[int, epath.Path]:
    """Returns the folders of states, complete or not, by step in rising order."""
    if not folder.is_dir():
        return {}
    found = {int(path.name): path for path in folder.iterdir() if re.fullmatch(r"\d+", path.name)}
    return dict(sorted(found.items()))


def is_complete(folder: epath.Path) -> bool:
    """Says whether a state was written to its end; it may be damaged since."""
    return (folder / _RECORD).exists()


def complete(folder: epath.Path, record: dict[str, Any]) -> None:
    """Writes `checkpoint.json`, after everything else of the state."""
    _write_json(folder / _RECORD, {"format": FORMAT, **record})


def read_record(folder: epath.Path) -> dict[str, Any] | None:
    """Returns what a state's `checkpoint.json` says; None if it is lost, or damaged, or of another format."""
    record = _read_json(folder / _RECORD)
    return record if record is not None and record.get("format") == FORMAT else None


def read_records(folder: epath.Path) -> list[dict[str, Any]]:
    """Returns the records of all complete states below `folder`, oldest step first."""
    records = [read_record(path) for path in step_folders(folder).values()]
    return [record for record in records if record is not None]


def write_checksums(folder: epath.Path, process: int) -> None:
    """Writes size and SHA-256 of the files that one process wrote: its own part, and process 0 also the common ones."""
    sums = {
        name: {"size": path.stat().length, "sha256": _digest(path)}
        for name, path in _files(folder / "arrays", "arrays/").items()
        if _writer(name) == process
    }
    _write_json(folder / f"files-{process}.json", sums)


def await_checksums(folder: epath.Path, count: int, timeout_s: float) -> None:
    """Returns once `count` processes have written their checksums.

    Raises:
      TimeoutError: some have not in time; names them.
    """
    until = time.monotonic() + timeout_s
    while missing := [process for process in range(count) if not (folder / f"files-{process}.json").exists()]:
        if time.monotonic() > until:
            raise TimeoutError(f"processes {missing} have not written their files within {timeout_s:.0f} s")
        time.sleep(0.1)


def find_damage(folder: epath.Path, process: int = 0, count: int = 1) -> list[str]:
    """Returns what is wrong with a complete state's files, in the share of them that one of `count` processes checks.

    Args:
      folder: of the state.
      process: the share to check, from 0.
      count: of shares.
    """
    record = read_record(folder)
    if record is None:
        return [f"{_RECORD}: not a record of {FORMAT}"]
    faults, expected = [], {}
    for writer in range(record["processes"]):
        sums = _read_json(folder / f"files-{writer}.json")
        if sums is None:
            faults.append(f"files-{writer}.json: lost or damaged")
        else:
            expected.update(sums)
    for name in sorted(expected)[process::count]:
        fault = _fault(folder / name, expected[name])
        if fault is not None:
            faults.append(f"{name}: {fault}")
    return faults


def remove(folder: epath.Path) -> None:
    """Deletes a state, its completeness first, so that a kill on the way leaves an incomplete one."""
    (folder / _RECORD).unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)


def move_aside(folder: epath.Path) -> epath.Path:
    """Returns the new name of a damaged state, which a state of the same step would collide with."""
    number = 1
    while (aside := folder.parent / f"{folder.name}.damaged-{number}").exists():
        number += 1
    folder.rename(aside)
    return aside


def _fault(path: epath.Path, expected: dict[str, Any]) -> str | None:
    try:
        size = path.stat().length
        if size != expected["size"]:
            return f"{size:,} bytes, {expected['size']:,} were written"
        return None if _digest(path) == expected["sha256"] else "its SHA-256 is not that of what was written"
    except FileNotFoundError:
        return "lost"
    except OSError as error:
        return f"cannot be read ({error})"


def _files(folder: epath.Path, prefix: str) -> dict[str, epath.Path]:
    """Returns {relative name: path} of all files below `folder`."""
    found = {}
    for path in folder.iterdir():
        if path.is_dir():
            found.update(_files(path, f"{prefix}{path.name}/"))
        else:
            found[prefix + path.name] = path
    return found


def _writer(name: str) -> int:
    """Returns the process that wrote a file: Orbax has a database for each, and process 0 joins them."""
    own = re.search(r"/ocdbt\.process_(\d+)/", name)
    return int(own[1]) if own else 0


def _digest(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_json(path: epath.Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write_json(path: epath.Path, data: dict[str, Any]) -> None:
    partial = path.parent / f".{path.name}.partial"
    partial.write_text(json.dumps(data, indent=1) + "\n")
    partial.replace(path)
