"""The evaluate stage: completions in, verdicts and a report out.

    jaxwiz evaluate configs/evaluate/humaneval.yaml samples=FILE

Imports no JAX: programs run in servers started from here, which must be small and clean.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import say, warn
from jaxwiz.evaluate.answers import read_completions
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.page import render_page
from jaxwiz.evaluate.page_data import PageSystem
from jaxwiz.evaluate.report import build_report
from jaxwiz.evaluate.score import JOURNAL, score
from jaxwiz.evaluate.spread import make_runner
from jaxwiz.evaluate.summary import summary_text
from jaxwiz.evaluate.training import Training, read_training
from jaxwiz.fanout import check_engine
from jaxwiz.files import UserError
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.problem import Benchmark
from jaxwiz.problems.programs import prepare_judge
from jaxwiz.records import Completion, Verdict, write_records
from jaxwiz.sandbox import Level, Limits, machine_factor, sandbox_level


def run(config: EvaluateConfig) -> Path:
    """Scores every completion and writes verdicts.jsonl, report.json, report.html and summary.txt.

    Args:
      config: what to score; a killed run goes on from the journal in `config.out`.

    Returns:
      `config.out`.

    Raises:
      UserError: completions, benchmark or training summary can't be used, or no program can be run here.
    """
    benchmark, completions, training = _read_inputs(config)
    sandbox = sandbox_level(config.unsafe_no_sandbox)
    if sandbox.warning:
        warn(sandbox.warning)
    config.out.mkdir(parents=True, exist_ok=True)
    limits = Limits(timeout_s=config.timeout_s, memory_bytes=config.memory_limit_mib << 20)
    judge = prepare_judge(config.benchmark, benchmark, config.workers)
    runner = make_runner(config, limits, sandbox)
    verdicts = score(completions, benchmark, judge, limits, runner, config.out / JOURNAL)
    write_results(config, benchmark, completions, verdicts, sandbox, machine_factor(), training)
    say(f"evaluate: wrote {config.out / 'report.html'}")
    return config.out


def write_results(
    config: EvaluateConfig,
    benchmark: Benchmark,
    completions: Mapping[str, Sequence[Completion]],
    verdicts: Sequence[Verdict],
    sandbox: Level,
    factor: float,
    training: Training | None,
) -> None:
    """Writes verdicts.jsonl, report.json, report.html and summary.txt to `config.out`.

    Args:
      config: what was asked for.
      benchmark: the tasks that were scored.
      completions: by system label.
      verdicts: one for each completion, in their order.
      sandbox: how programs were confined.
      factor: this machine's `machine_factor()`.
      training: what the train stage measured, if it is known.
    """
    report = build_report(config, benchmark, verdicts, sandbox, factor, training)
    systems = [
        PageSystem(
            label,
            [verdict for verdict in verdicts if verdict.system == label],
            completions[label],
            str(system.completions),
        )
        for label, system in config.answers().items()
    ]
    page = render_page(report, benchmark.problems, systems, training, config.page_text_mib << 20)
    write_records(config.out / "verdicts.jsonl", verdicts)
    files.write_text(config.out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    files.write_text(config.out / "report.html", page)
    files.write_text(config.out / "summary.txt", summary_text(report))


def check(config: EvaluateConfig) -> list[Finding]:
    """Returns what can be told before running: on tasks, completions, training summary and sandbox."""
    try:
        benchmark, completions, _ = _read_inputs(config)
        sandbox = sandbox_level(config.unsafe_no_sandbox)
    except UserError as error:
        return [Finding("error", str(error))]
    programs = sum(len(answers) for answers in completions.values())
    findings = [
        Finding("ok", f"{len(benchmark.problems)} tasks, {len(completions)} systems, {programs} programs to run"),
        Finding("ok", f"sandbox level {sandbox.name}: {', '.join(sandbox.layers)}"),
        *check_engine(config.engine),
    ]
    if sandbox.warning:
        findings.append(Finding("warning", sandbox.warning))
    for label, answers in completions.items():
        samples = min(sum(answer.task_id == task_id for answer in answers) for task_id in benchmark.problems)
        findings += [
            Finding("warning", f"k = {k}: {label} has only {samples} samples of some task; pass@{k} is left out")
            for k in config.k
            if k > samples
        ]
    return findings


def _read_inputs(config: EvaluateConfig) -> tuple[Benchmark, dict[str, list[Completion]], Training | None]:
    benchmark = load_benchmark(config.benchmark)
    completions = {
        label: read_completions(system.completions, benchmark.problems, benchmark.known)
        for label, system in config.answers().items()
    }
    return benchmark, completions, read_training(config.training) if config.training else None
