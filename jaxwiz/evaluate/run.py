"""The evaluate stage: completions in, verdicts and a report out.

    jaxwiz evaluate configs/evaluate/humaneval.yaml systems.model.completions=FILE

Imports no JAX: programs run in servers started from here, which must be small and clean.
"""

import json
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import say, warn
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.page import render_page
from jaxwiz.evaluate.report import Training, build_report, read_training, summary_text
from jaxwiz.evaluate.score import JOURNAL, read_completions, score
from jaxwiz.files import UserError
from jaxwiz.problems.humaneval import Problem, load_humaneval, select
from jaxwiz.records import Completion, write_records
from jaxwiz.sandbox import PROTECTING_LAYERS, Limits, isolation_layers

EXPOSED = (
    "this machine allows no process namespace, no other user and no fence for signals (Linux 6.12), so a program that "
    "means harm could end other processes of this user; score completions that you don't trust elsewhere"
)


def run(config: EvaluateConfig) -> Path:
    """Scores every completion and writes verdicts.jsonl, report.json, report.html and summary.txt.

    Args:
      config: what to score; a killed run goes on from the journal in `config.out`.

    Returns:
      `config.out`.

    Raises:
      UserError: completions, benchmark or training summary can't be used, or no program can be run here.
    """
    problems, completions, training = _read_inputs(config)
    isolation = isolation_layers()
    if PROTECTING_LAYERS.isdisjoint(isolation):
        warn(EXPOSED)
    config.out.mkdir(parents=True, exist_ok=True)
    limits = Limits(timeout_s=config.timeout_s, memory_bytes=config.memory_limit_mib << 20)
    verdicts = score(completions, problems, limits, config.workers, config.out / JOURNAL)
    report = build_report(config, problems, verdicts, isolation, training)
    write_records(config.out / "verdicts.jsonl", verdicts)
    files.write_text(config.out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    files.write_text(config.out / "report.html", render_page(report, training, problems, completions, verdicts))
    files.write_text(config.out / "summary.txt", summary_text(report))
    say(f"evaluate: wrote {config.out / 'report.html'}")
    return config.out


def check(config: EvaluateConfig) -> list[Finding]:
    """Returns what can be told before running: on tasks, completions, training summary and isolation."""
    try:
        problems, completions, _ = _read_inputs(config)
        isolation = isolation_layers()
    except UserError as error:
        return [Finding("error", str(error))]
    programs = sum(len(answers) for answers in completions.values())
    findings = [
        Finding("ok", f"{len(problems)} tasks, {len(completions)} systems, {programs} programs to run"),
        Finding("ok", f"programs are isolated by: {', '.join(isolation)}"),
    ]
    if PROTECTING_LAYERS.isdisjoint(isolation):
        findings.append(Finding("warning", EXPOSED))
    for label, answers in completions.items():
        samples = min(sum(answer.task_id == task_id for answer in answers) for task_id in problems)
        findings += [
            Finding("warning", f"k = {k}: {label} has only {samples} samples of some task; pass@{k} is left out")
            for k in config.k
            if k > samples
        ]
    return findings


def _read_inputs(
    config: EvaluateConfig,
) -> tuple[dict[str, Problem], dict[str, list[Completion]], Training | None]:
    known = load_humaneval(config.benchmark.path)
    problems = select(known, config.benchmark.ids, config.benchmark.limit)
    completions = {
        label: read_completions(system.completions, problems, known) for label, system in config.systems.items()
    }
    return problems, completions, read_training(config.training) if config.training else None
