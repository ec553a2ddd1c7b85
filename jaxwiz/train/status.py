"""What a run's folder tells of it, as text: where it is, how the loss went, what it last saved, how often it began.

Read from the files that the train stage writes as it goes (`metrics.jsonl`, `progress.json`, `history.jsonl`, the
states' records), so it works beside a running one, and on what a killed one left. Needs no JAX. A state's files are not
compared with their checksums here: the run does that when it continues.
"""

import dataclasses
import datetime
import itertools
import json
import math
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxwiz.exit_codes import HUNG, PREEMPTED
from jaxwiz.files import UserError
from jaxwiz.train.history import FILE as HISTORY
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.watchdog import PROGRESS_EVERY_S, PROGRESS_FILE

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
_SILENT_AFTER_S = 12 * PROGRESS_EVERY_S  # a run that says nothing for so long has ended, or its disk is not ours
_SHOWN_STARTS = 8


@dataclasses.dataclass
class Life:
    """One start of a run.

    Attributes:
      start: the line of its start.
      step: steps done when it began to train; None: it did not come that far.
      end: the line of its end; None: it was killed, or still runs.
    """

    start: dict[str, Any]
    step: int | None = None
    end: dict[str, Any] | None = None


def lives(folder: Path) -> list[Life]:
    """Returns the starts of a run in order; a line that a kill cut short is left out."""
    path, found = folder / HISTORY, []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["event"] == "start":
            found.append(Life(line))
        elif found and line["event"] == "begin":
            found[-1].step = line["step"]
        elif found:
            found[-1].end = line
    return found


def describe_run(folder: Path, now: float | None = None) -> str:
    """Returns what a run's folder tells, as lines of text.

    Args:
      folder: `out` of a train stage.
      now: seconds since 1970; None: the present.

    Raises:
      UserError: no training wrote this folder.
    """
    now = time.time() if now is None else now
    started = lives(folder)
    if not started:
        raise UserError(f"{folder}: no {HISTORY} in it, so it is not the `out` of a train stage; give that folder")
    lines, progress = read_metrics(folder / "metrics.jsonl"), _read_json(folder / PROGRESS_FILE)
    state = _state_of(started[-1], progress, now)
    parts = [
        ("progress", _progress(lines, progress, state == "running", now)),
        ("loss", _loss(lines)),
        ("held-out", _curve([(line["step"], line["heldout_loss"]) for line in lines if "heldout_loss" in line])),
        ("benchmark", _benchmark(lines)),
        ("left out", _left_out(folder, lines)),
        ("states", _states(folder, now)),
        ("starts", _starts(started, state)),
        ("software", _software(started[-1].start)),
        ("logs", ", ".join(str(path) for path in sorted((folder / "logs").glob("*.log"))[:4])),
    ]
    text = "".join(f"  {name:<10}{told}\n" for name, told in parts if told)
    return f"{folder}: {state}\n{text}"


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Returns a curve as at most `width` bars, each the mean of a stretch; "" without values."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [len(values) * place // width for place in range(width + 1)]
    means = [math.fsum(values[begin:end]) / (end - begin) for begin, end in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _state_of(last: Life, progress: dict[str, Any], now: float) -> str:
    if last.end is None:
        silent_s = now - max(progress.get("time", 0.0), last.start["time"])
        here = last.start["host"] == socket.gethostname()
        if silent_s < _SILENT_AFTER_S and not (here and _is_gone(last.start["pid"])):
            return "running"
        return f"ended without a word, killed or lost; the last sign of life is {_ago(silent_s)}"
    code = last.end["exit_code"]
    if code == 0:
        return "finished"
    words = {PREEMPTED: "preempted, run the same command again", HUNG: "hung, run the same command again"}
    return f"{words.get(code, 'ended')} (exit code {code})"


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _progress(lines: list[dict[str, Any]], progress: dict[str, Any], running: bool, now: float) -> str:
    steps = progress.get("steps")
    done = max((line["step"] for line in lines), default=0)
    if not steps:
        return f"step {done:,}"
    filled = round(20 * done / steps)
    told = f"[{'#' * filled}{'-' * (20 - filled)}] {done:,} of {steps:,} steps ({done / steps:.1%})"
    speed = progress.get("tokens_per_s")
    if speed:
        told += f", {speed:,.0f} tokens/s, MFU {progress['mfu']:.1%}"
    trained = [line["tokens"] for line in lines if "tokens" in line]
    if running and speed and trained:
        told += f", {_span((steps - done) * math.fsum(trained) / len(trained) / speed)} to go"
    if running:
        told += f"; {_ago(now - progress['time'])} it waited for {progress['doing']}"
    return told


def _loss(lines: list[dict[str, Any]]) -> str:
    return _curve([(line["step"], line["loss"]) for line in lines if "loss" in line])


def _curve(points: list[tuple[int, float]]) -> str:
    if not points:
        return ""
    (first_step, first), (last_step, last) = points[0], points[-1]
    values = [value for _, value in points]
    return f"{first:.4f} at step {first_step:,} {sparkline(values)} {last:.4f} at step {last_step:,}"


def _benchmark(lines: list[dict[str, Any]]) -> str:
    points = [(line["step"], line["benchmark"]) for line in lines if "benchmark" in line]
    return "; ".join(
        f"step {step:,}: {', '.join(f'{name} {value:.1%}' for name, value in scores.items())}"
        for step, scores in points[-3:]
    )


def _left_out(folder: Path, lines: list[dict[str, Any]]) -> str:
    path = folder / "corrupt-rows.jsonl"
    rows = len(set(path.read_text(encoding="utf-8").splitlines())) if path.exists() else 0
    told = {
        "step(s) that were not finite": [line["step"] for line in lines if "skipped" in line],
        "spike(s) of the loss, kept": [line["step"] for line in lines if "spike" in line],
    }
    parts = [f"{len(steps)} {what}, the last at step {steps[-1]:,}" for what, steps in told.items() if steps]
    return "; ".join([*parts, *([f"{rows} row(s) that could not be read, see {path}"] if rows else [])])


def _states(folder: Path, now: float) -> str:
    from etils import epath

    from jaxwiz.checkpoint.record import read_records

    config = yaml.safe_load((folder / "config.yaml").read_text()) if (folder / "config.yaml").exists() else {}
    given = config.get("intervals", {}).get("checkpoint_folder")
    path = epath.Path(folder / "state" if given is None else given)
    try:
        records = read_records(path)
        damaged = [each.name for each in path.iterdir() if ".damaged-" in each.name] if path.is_dir() else []
    except Exception as error:  # whatever a remote file system may raise; the rest is still worth telling
        return f"{path} cannot be read: {error}"
    told = f"none in {path}"
    if records:
        newest = records[-1]
        told = f"step {newest['step']:,}, saved {_ago(now - newest['saved_at'])}, {len(records)} kept in {path}"
    return told + (f"; damaged and moved aside: {', '.join(damaged)}" if damaged else "")


def _starts(started: list[Life], state: str) -> str:
    shown = [f"{len(started)}, {len(started) - 1} of them restarts"]
    if len(started) > _SHOWN_STARTS:
        shown.append(f"... {len(started) - _SHOWN_STARTS} before these")
    for life in started[-_SHOWN_STARTS:]:
        begin = datetime.datetime.fromtimestamp(life.start["time"]).strftime("%Y-%m-%d %H:%M:%S")
        where = f"{life.start['host']}, {life.start['processes']} process(es)"
        step = "before training began" if life.step is None else f"from step {life.step:,}"
        if life.end is not None:
            reason = life.end["reason"].splitlines()[0]
            end = reason if life.end["exit_code"] == 0 else f"exit code {life.end['exit_code']}: {reason}"
        else:
            end = "running" if life is started[-1] and state == "running" else "killed or lost, no end noted"
        shown.append(f"{begin} on {where}, {step}: {end}")
    return f"\n{' ' * 12}".join(shown)


def _software(start: dict[str, Any]) -> str:
    told, git = ", ".join(f"{name} {version}" for name, version in start["versions"].items()), start["git"]
    if git is None:
        return told
    return f"{told}; commit {git['commit'][:12]}" + (
        f" with {len(git['changed'])} changed files" * bool(git["changed"])
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _ago(seconds: float) -> str:
    return f"{_span(max(seconds, 0.0))} ago"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
