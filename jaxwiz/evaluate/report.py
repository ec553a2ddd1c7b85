"""Builds the report of an evaluation: one mapping, written as report.json, from which text and HTML are made.

It holds everything that moves the numbers: hashes and versions of data, oracle, code and model, samples a task, how
they were drawn, limits, sandbox. What cannot be told is {"unknown": "why"}, never left out. No time stamps: but for
the measured machine factor, the same verdicts give the same bytes.
"""

import dataclasses
import itertools
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxwiz import __version__, files
from jaxwiz.config import dump_config
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.paired import FEWEST_DIFFERING, SIGNIFICANT, Tally, adjust_for_many, compare
from jaxwiz.evaluate.passk import FEWEST_TASKS, RESAMPLES, estimate, pass_at_k
from jaxwiz.evaluate.provenance import code_commit, model_identity, sampling_settings
from jaxwiz.evaluate.training import Training
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalConfig, MbppConfig
from jaxwiz.problems.problem import Benchmark
from jaxwiz.records import Verdict
from jaxwiz.sandbox import Level

SCHEMA = "jaxwiz.report.v2"

NAMES = {"humaneval": "HumanEval", "humaneval_plus": "HumanEval+", "mbpp": "MBPP", "mbpp_plus": "MBPP+"}

METHOD = {
    "pass@k": "unbiased, 1 - C(n-c,k)/C(n,k) for each task, then the mean over tasks",
    "interval": f"95%, BCa bootstrap over tasks, {RESAMPLES} resamples with a fixed seed; Wilson's score interval "
    f"where less than {FEWEST_TASKS:g} tasks' worth of passes or of failures leave too little to resample",
    "difference": "exact two-sided permutation test on the tasks' differences in pass rate (McNemar's exact test where "
    f"each task has one sample), significant below {SIGNIFICANT}; with more than two systems by Holm's correction; its "
    f"interval is the bootstrap's, where at least {FEWEST_DIFFERING} tasks differ",
}

# Reasons, and a task, whose verdicts may differ from the official harness's on purpose.
BY_DESIGN = {
    "empty": "an empty completion fails, also where a task's tests accept a bare docstring",
    "sandbox": "a program that breaks its sandbox fails",
    "own_helper": "tests use the prompt's helper (HumanEval/32, 38, 50), also where an answer redefines it",
    "not_plain_data": "a result that is no plain data (an object that claims to equal everything, or never ends) fails",
}

FIND_ZERO = "HumanEval/32"
FIND_ZERO_BY_DESIGN = {
    FIND_ZERO: "EvalPlus 0.3.1 fails every answer to it; here one passes that is a zero to within the tolerance"
}

Tallies = Mapping[str, Tally]  # by task id


def build_report(
    config: EvaluateConfig,
    benchmark: Benchmark,
    verdicts: Sequence[Verdict],
    sandbox: Level,
    machine_factor: float,
    training: Training | None,
) -> dict[str, Any]:
    """Returns the report as a plain mapping that JSON can hold.

    Args:
      config: what was asked for.
      benchmark: the tasks that were scored, and which data and oracle they are of.
      verdicts: of every system.
      sandbox: how programs were confined.
      machine_factor: how many times slower than the reference this machine is, which time limits were longer by.
      training: what the train stage measured, if it is known.
    """
    by_system: dict[str, list[Verdict]] = {label: [] for label in config.answers()}
    for verdict in verdicts:
        by_system[verdict.system].append(verdict)
    return {
        "schema": SCHEMA,
        "versions": {
            "jaxwiz": __version__,
            "commit": code_commit(),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "benchmark": {
            "kind": config.benchmark.kind,
            "name": NAMES[benchmark.name],
            "version": benchmark.version,
            "oracle": benchmark.oracle_version,
            "file": benchmark.file,
            "sha256": benchmark.sha256,
            "tasks": list(benchmark.problems),
            "complete": len(benchmark.problems) == len(benchmark.known),
        },
        "scoring": {
            "timeout_s": config.timeout_s,
            "machine_factor": round(machine_factor, 2),
            "call_limit": _call_limit(config.benchmark),
            "memory_limit_mib": config.memory_limit_mib,
            "sandbox": {
                "level": sandbox.name,
                "layers": list(sandbox.layers),
                "missing": list(sandbox.missing),
                "unsafe_no_sandbox": config.unsafe_no_sandbox,
            },
            "differs_by_design": BY_DESIGN | (FIND_ZERO_BY_DESIGN if benchmark.name == "humaneval_plus" else {}),
            "method": METHOD,
        },
        "systems": {label: _system(config, label, found, training) for label, found in by_system.items()},
        "comparisons": compare_with_first({label: tally(found) for label, found in by_system.items()}),
        "training": None if training is None else {"heldout_loss": training.heldout_loss, **training.facts},
        "config": dump_config(config),
    }


def tally(verdicts: Sequence[Verdict], base: bool = False) -> dict[str, Tally]:
    """Returns {task id: its samples and passes} of one system's verdicts, in their order.

    Args:
      verdicts: of one system.
      base: count those that pass the base tests alone.
    """
    samples: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for verdict in verdicts:
        samples[verdict.task_id] += 1
        passed[verdict.task_id] += (verdict.base_outcome if base else verdict.outcome) == "passed"
    return {task_id: Tally(count, passed[task_id]) for task_id, count in samples.items()}


def compare_with_first(tallies: Mapping[str, Tallies]) -> list[dict[str, Any]]:
    """Returns how each system but the first differs from the first, the p-values corrected for their number."""
    first, *others = tallies
    comparisons = [compare(tallies[first], tallies[label]) for label in others]
    corrected = adjust_for_many([comparison.p_value for comparison in comparisons])
    return [
        {
            "first": first,
            "second": label,
            **dataclasses.asdict(comparison),
            "corrected_p_value": p_value,
            "significant": p_value < SIGNIFICANT,
        }
        for label, comparison, p_value in zip(others, comparisons, corrected, strict=True)
    ]


def scores(tallies: Tallies, k: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Returns pass@1 and pass@k with their intervals, by k; a k above a task's number of samples is left out."""
    fewest = min(task.samples for task in tallies.values())
    return {
        str(size): dataclasses.asdict(
            estimate([pass_at_k(task.samples, task.passed, size) for task in tallies.values()])
        )
        for size in sorted({1, *k})
        if size <= fewest
    }


def _system(config: EvaluateConfig, label: str, verdicts: list[Verdict], training: Training | None) -> dict[str, Any]:
    system = config.answers()[label]
    tallies = tally(verdicts)
    counts = [task.samples for task in tallies.values()]
    forgeable = [verdict for verdict in verdicts if verdict.forgeable]
    has_base = any(verdict.base_outcome for verdict in verdicts)
    reasons = _count(verdicts, lambda verdict: verdict.reason)
    return {
        "samples_per_task": [min(counts), max(counts)],
        "pass_at": scores(tallies, config.k),
        "base_pass_at": scores(tally(verdicts, base=True), config.k) if has_base else None,
        "outcomes": {"passed": 0, "failed": 0, "timed_out": 0} | _count(verdicts, lambda verdict: verdict.outcome),
        "reasons": {reason: count for reason, count in reasons.items() if reason},
        "differs_by_design": {reason: reasons.get(reason, 0) for reason in BY_DESIGN} | _find_zero(config, verdicts),
        "forgeable": {
            "verdicts": len(forgeable),
            "passed": sum(verdict.outcome == "passed" for verdict in forgeable),
        },
        "heldout_loss": training.heldout_loss[system.heldout] if training and system.heldout else None,
        "completions": {"file": str(system.completions), "sha256": files.sha256_of_file(system.completions)},
        "sampling": sampling_settings(system.completions),
        "model": model_identity(system.completions),
    }


def _find_zero(config: EvaluateConfig, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Returns how many answers pass the task that EvalPlus 0.3.1 passes to none, where it scores."""
    if config.benchmark.kind != "humaneval_plus":
        return {}
    return {FIND_ZERO: sum(verdict.task_id == FIND_ZERO and verdict.outcome == "passed" for verdict in verdicts)}


def _call_limit(benchmark: BenchmarkConfig) -> dict[str, float] | None:
    """Returns how long one call of a tested function may take; None where only whole programs are limited."""
    if isinstance(benchmark, HumanEvalConfig | MbppConfig):
        return None
    return {"min_time_limit_s": benchmark.min_time_limit_s, "time_limit_factor": benchmark.time_limit_factor}


def _count(verdicts: Sequence[Verdict], word: Callable[[Verdict], str]) -> dict[str, int]:
    """Returns how many verdicts have each word, sorted by the word."""
    return {value: len(list(group)) for value, group in itertools.groupby(sorted(map(word, verdicts)))}
