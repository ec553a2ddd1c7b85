"""Builds the report of an evaluation: one mapping, written as report.json, from which text and HTML are made.

It holds everything that moves the numbers (data hash, samples a task, sampling settings, limits, isolation, versions)
and no time stamps, so that the same verdicts give the same bytes. What it concludes is what was measured, also when
nothing has improved.
"""

import dataclasses
import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz import __version__, files
from jaxwiz.config import read_config_file
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.passk import SIGNIFICANT, Comparison, compare, estimate, pass_at_k
from jaxwiz.files import UserError
from jaxwiz.problems.humaneval import Problem, humaneval_path
from jaxwiz.records import Verdict

METHOD = {
    "pass@k": "unbiased, 1 - C(n-c,k)/C(n,k) for each task, then the mean over tasks",
    "interval": "95%, Wilson's score interval, a task counting as one trial",
    "difference": f"exact two-sided sign test over tasks whose pass rate differs, significant below {SIGNIFICANT}",
}


@dataclasses.dataclass(frozen=True)
class Training:
    """What the train stage's summary.json says; a value that it lacks is None, a curve that it lacks is empty.

    Attributes:
      heldout_loss: mean loss a token on held-out answers, by "before" and "after".
      curve: (step, training loss) points.
      heldout_curve: (step, held-out loss) points.
      facts: other numbers, such as steps, train_tokens, tokens_per_s and mfu.
    """

    heldout_loss: Mapping[str, float | None]
    curve: tuple[tuple[float, float], ...]
    heldout_curve: tuple[tuple[float, float], ...]
    facts: Mapping[str, float]


def read_training(path: Path) -> Training:
    """Returns the train stage's summary.

    Raises:
      UserError: the file is not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"training = '{path}': cannot read the summary ({error}); give train's summary.json") from None
    if not isinstance(data, dict):
        raise UserError(f"training = '{path}': holds {type(data).__name__}, not an object; give train's summary.json")
    return Training(
        heldout_loss={moment: _number(data.get(f"heldout_loss_{moment}")) for moment in ("before", "after")},
        curve=_points(data.get("curve")),
        heldout_curve=_points(data.get("heldout_curve")),
        facts={
            key: number
            for key, value in data.items()
            if not key.startswith("heldout_loss") and (number := _number(value)) is not None
        },
    )


def build_report(
    config: EvaluateConfig,
    problems: Mapping[str, Problem],
    verdicts: Sequence[Verdict],
    isolation: Sequence[str],
    training: Training | None,
) -> dict[str, Any]:
    """Returns the report as a plain mapping that JSON can hold.

    Args:
      config: what was asked for.
      problems: the tasks that were scored.
      verdicts: of every system.
      isolation: what kept programs from the machine.
      training: what the train stage measured, if it is known.
    """
    data_file = humaneval_path(config.benchmark.path)
    tallies = {label: _tally(label, verdicts) for label in config.systems}
    return {
        "schema": "jaxwiz.report.v1",
        "jaxwiz": __version__,
        "python": platform.python_version(),
        "benchmark": {
            "kind": config.benchmark.kind,
            "file": data_file.name,
            "sha256": files.sha256_of_file(data_file),
            "tasks": list(problems),
        },
        "scoring": {
            "timeout_s": config.timeout_s,
            "memory_limit_mib": config.memory_limit_mib,
            "isolation": list(isolation),
            "method": METHOD,
        },
        "systems": {label: _system(config, label, tally, verdicts, training) for label, tally in tallies.items()},
        "comparison": _comparison(tallies),
        "training": None if training is None else {"heldout_loss": training.heldout_loss, **training.facts},
    }


def conclusions(report: Mapping[str, Any]) -> list[str]:
    """Returns the sentences that say what was found: on the score, then on the loss, where each can be said."""
    sentences = []
    comparison = report["comparison"]
    if comparison is not None:
        sentences.append(_conclude_score(comparison))
    training = report["training"]
    if training is not None:
        before, after = (training["heldout_loss"][moment] for moment in ("before", "after"))
        if before is not None and after is not None:
            verb = "fell" if after < before else "rose" if after > before else "stayed"
            change = f" ({(after - before) / before:+.1%})" if before else ""
            sentences.append(f"Held-out loss {verb} from {before:.4f} to {after:.4f}{change}.")
    return sentences


def summary_text(report: Mapping[str, Any]) -> str:
    """Returns the report as an aligned table and its conclusions, ending in a line break."""
    rows = [["system", "held-out loss", "pass@1", "95% interval", "tasks", "samples a task"]]
    for label, system in report["systems"].items():
        loss, score = system["heldout_loss"], system["pass_at"]["1"]
        rows.append(
            [
                label,
                "-" if loss is None else f"{loss:.4f}",
                f"{score['value']:.1%}",
                f"{score['low']:.1%} to {score['high']:.1%}",
                str(len(report["benchmark"]["tasks"])),
                samples_text(system),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, *conclusions(report)]) + "\n"


def samples_text(system: Mapping[str, Any]) -> str:
    """Returns a system's number of samples a task, as "1" or "8 to 10"."""
    low, high = system["samples_per_task"]
    return str(low) if low == high else f"{low} to {high}"


def _conclude_score(comparison: Mapping[str, Any]) -> str:
    first, second = comparison["first"], comparison["second"]
    better, worse, points = comparison["better"], comparison["worse"], 100 * comparison["difference"]
    if not better and not worse:
        return f"No task's pass rate differs between {first} and {second}: pass@1 is no better and no worse."
    split = f"{better} {'task' if better == 1 else 'tasks'} better, {worse} worse"
    test = f"{points:+.1f} points of pass@1, {split}, exact sign test p = {comparison['p_value']:.2g}"
    if not comparison["significant"]:
        return f"The difference between {first} and {second} is within noise ({test})."
    # The test is on the counts of tasks, so they say the direction.
    return f"{second} is {'better' if better > worse else 'worse'} than {first} ({test})."


def _tally(label: str, verdicts: Sequence[Verdict]) -> dict[str, tuple[int, int]]:
    """Returns {task id: (samples, passed)} of one system."""
    samples: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for verdict in verdicts:
        if verdict.system == label:
            samples[verdict.task_id] += 1
            passed[verdict.task_id] += verdict.outcome == "passed"
    return {task_id: (count, passed[task_id]) for task_id, count in samples.items()}


def _system(
    config: EvaluateConfig,
    label: str,
    tally: Mapping[str, tuple[int, int]],
    verdicts: Sequence[Verdict],
    training: Training | None,
) -> dict[str, Any]:
    system = config.systems[label]
    counts = [samples for samples, _ in tally.values()]
    reported = [k for k in sorted({1, *config.k}) if k <= min(counts)]
    outcomes = Counter(verdict.outcome for verdict in verdicts if verdict.system == label)
    return {
        "samples_per_task": [min(counts), max(counts)],
        "pass_at": {
            str(k): dataclasses.asdict(estimate([pass_at_k(samples, passed, k) for samples, passed in tally.values()]))
            for k in reported
        },
        "outcomes": {status: outcomes[status] for status in ("passed", "failed", "timed_out")},
        "heldout_loss": training.heldout_loss[system.heldout] if training and system.heldout else None,
        "completions_sha256": files.sha256_of_file(system.completions),
        "sampling": _sampling_config(system.completions),
    }


def _comparison(tallies: Mapping[str, Mapping[str, tuple[int, int]]]) -> dict[str, Any] | None:
    if len(tallies) < 2:
        return None
    labels = list(tallies)
    rates = [
        {task_id: passed / samples for task_id, (samples, passed) in tallies[label].items()}
        for label in (labels[0], labels[-1])
    ]
    comparison: Comparison = compare(*rates)
    return {
        "first": labels[0],
        "second": labels[-1],
        **dataclasses.asdict(comparison),
        "significant": comparison.significant,
    }


def _sampling_config(completions: Path) -> dict[str, Any] | None:
    """Returns the sample stage's resolved config, which stands beside the completions that it wrote; None elsewhere."""
    path = completions.parent / "config.yaml"
    if not path.is_file():
        return None
    try:
        data = read_config_file(path)
    except UserError:
        return None  # a stranger's file; completions may come from anywhere
    return data if data.get("stage") == "sample" else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _points(value: Any) -> tuple[tuple[float, float], ...]:
    """Returns the finite (step, value) pairs of a list, leaving out what is none, such as a loss of NaN."""
    pairs = value if isinstance(value, list) else []
    return tuple(
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(_number(part) is not None for part in pair)
    )
