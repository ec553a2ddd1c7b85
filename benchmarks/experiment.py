"""Runs configs/pipeline/smollm2-135m.yaml, then prints its table, and writes it, the figures and their picture.

    python benchmarks/experiment.py --rows code_alpaca_2k.json
    python benchmarks/experiment.py --rows code_alpaca_2k.json --offline FOLDER    # with the benchmarks' files there

Three sets of rows, each trained on with three seeds. A set's score is the mean over its three models, and its interval
and test are those of the evaluate stage with the three as samples of a task: they carry the chance that lies in the
tasks and in the seed of the training. Each set is compared with the model before training, and the p-values of the
sets are corrected for their number (Holm). It goes on where it was stopped.

Results: benchmarks/results/experiment.json, .md and .png.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.markdown import Markdown

import jaxwiz
from jaxwiz import files
from jaxwiz.cli import main as run_jaxwiz
from jaxwiz.evaluate.paired import SIGNIFICANT, Tally, adjust_for_many, compare
from jaxwiz.evaluate.passk import estimate
from jaxwiz.evaluate.report import tally
from jaxwiz.records import Completion, Verdict, read_records

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = ROOT / "configs" / "pipeline" / "smollm2-135m.yaml"
RESULTS = ROOT / "benchmarks" / "results"
SETS = {"seeds": "130 seeds", "alpaca": "Code Alpaca 2k", "evolved": "Code Alpaca 2k, evolved"}
SEEDS = (1, 2, 3)
SCORES = (  # title, the evaluate step, whether base tests alone count
    ("HumanEval", "humaneval", True),
    ("HumanEval+", "humaneval", False),
    ("MBPP", "mbpp", True),
    ("MBPP+", "mbpp", False),
)
NOTES = """pass@1, greedy, of 164 and of 378 tasks, with 95% intervals over tasks; the difference from the model before
training, in points, with the p-value of an exact paired test, corrected for three sets (Holm). A set's pass rate of a
task is that of its three models. MBPP's column has the tasks of MBPP+, judged by their base inputs alone.
"""
OFFLINE_FILES = {"humaneval_plus": "HumanEvalPlus*", "mbpp_plus": "MbppPlus*", "mbpp": "mbpp*"}
STEPS_OF = {"humaneval": "humaneval_plus", "mbpp": "mbpp_plus"}


def pipeline_overrides(rows: Path, offline: Path | None) -> list[str]:
    """Returns the overrides by which the pipeline reads these rows, and benchmarks from a folder if one is given."""
    overrides = [f"evolve.seeds={rows}", f"alpaca-data.sources=[{rows}]"]
    if offline is None:
        return overrides
    paths = {kind: next(iter(sorted(offline.glob(pattern))), None) for kind, pattern in OFFLINE_FILES.items()}
    for kind, path in paths.items():
        if path is None:
            sys.exit(f"--offline {offline}: holds no {OFFLINE_FILES[kind]}; download it there, or leave the option out")
    known = ["{kind: humaneval}", *(f"{{kind: {kind}, path: {path}}}" for kind, path in paths.items())]
    overrides += [f"{name}-data.clean.benchmarks=[{', '.join(known)}]" for name in SETS]
    for step, kind in STEPS_OF.items():
        answers = [f"{step}-base", *(f"{step}-{name}-{seed}" for name in SETS for seed in SEEDS)]
        overrides += [f"{one}.benchmark.path={paths[kind]}" for one in (step, *answers)]
    return overrides


def as_lines(rows: Path, folder: Path) -> Path:
    """Returns a JSONL file of rows that may come as one JSON list."""
    if rows.suffix != ".json":
        return rows
    path = folder / "rows.jsonl"
    listed = json.loads(rows.read_text(encoding="utf-8"))
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in listed))
    return path


def read_scores(run: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns by benchmark and by set, "base" first, the score, its interval and how it differs from the base."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for title, step, base_tests in SCORES:
        by_system: dict[str, list[Verdict]] = {}
        for verdict in read_records(run / step / "verdicts.jsonl", Verdict):
            by_system.setdefault(verdict.system, []).append(verdict)
        tallies = {label: tally(verdicts, base_tests) for label, verdicts in by_system.items()}
        sets = {"base": tallies["base"]}
        sets |= {name: together([tallies[f"{name} {seed}"] for seed in SEEDS]) for name in SETS}
        comparisons = {name: compare(sets["base"], sets[name]) for name in SETS}
        corrected = adjust_for_many([one.p_value for one in comparisons.values()])
        found[title] = {
            name: dataclasses.asdict(estimate([float(task.rate) for task in tasks.values()]))
            for name, tasks in sets.items()
        }
        for (name, comparison), p_value in zip(comparisons.items(), corrected, strict=True):
            of_seeds = [score(tallies[f"{name} {seed}"]) for seed in SEEDS]
            found[title][name] |= {
                "seeds": of_seeds,
                **{f"difference_{key}": value for key, value in dataclasses.asdict(comparison).items()},
                "corrected_p_value": p_value,
            }
        found[title]["evolved"]["against_alpaca"] = dataclasses.asdict(compare(sets["alpaca"], sets["evolved"]))
    return found


def read_answers(run: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Returns by benchmark and set how long the answers are, in tokens, and which share was cut off."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for step in STEPS_OF:
        for name in ("base", *SETS):
            steps = [f"{step}-base"] if name == "base" else [f"{step}-{name}-{seed}" for seed in SEEDS]
            answers = [one for each in steps for one in read_records(run / each / "completions.jsonl", Completion)]
            found.setdefault(step, {})[name] = {
                "mean_tokens": statistics.mean(one.new_tokens for one in answers),
                "share_cut": statistics.mean(one.finish_reason == "length" for one in answers),
            }
    return found


def together(tallies: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Returns the tasks' tallies over several models, each of them a sample."""
    return {
        task: Tally(sum(one[task].samples for one in tallies), sum(one[task].passed for one in tallies))
        for task in tallies[0]
    }


def score(tasks: Mapping[str, Tally]) -> float:
    return float(sum(task.rate for task in tasks.values()) / len(tasks))


def read_trainings(run: Path) -> dict[str, dict[str, Any]]:
    """Returns by set the rows and tokens trained on, and of each seed the held-out losses and curves."""
    found = {}
    for name in SETS:
        manifest = json.loads((run / f"{name}-data" / "manifest.json").read_text())
        train = manifest["splits"]["train"]
        summaries = [json.loads((run / f"train-{name}-{seed}" / "summary.json").read_text()) for seed in SEEDS]
        found[name] = {
            "examples": train["examples"],
            "tokens": train["tokens"],
            "steps": summaries[0]["steps"],
            "heldout_loss_before": summaries[0]["heldout_loss_before"],
            "heldout_loss_after": [summary["heldout_loss_after"] for summary in summaries],
            "curves": [summary["curve"] for summary in summaries],
            "heldout_curves": [summary["heldout_curve"] for summary in summaries],
        }
    return found


def table_of(trainings: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Returns the table as Markdown."""
    lines = [
        "| trained on | examples, tokens | held-out loss | " + " | ".join(scores) + " |",
        "|---|---|---|" + "---|" * len(scores),
        "| nothing | | | " + " | ".join(cell(one["base"]) for one in scores.values()) + " |",
    ]
    for name, title in SETS.items():
        training = trainings[name]
        loss = f"{training['heldout_loss_before']:.3f} -> {statistics.mean(training['heldout_loss_after']):.3f}"
        size = f"{training['examples']:,}, {training['tokens']:,}"
        cells = " | ".join(cell(one[name]) for one in scores.values())
        lines.append(f"| {title} | {size} | {loss} | {cells} |")
    return "\n".join(lines) + "\n"


def reading_of(scores: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """Returns, as Markdown, what the figures allow to be said of each benchmark, and how long the answers are."""
    lines = []
    for title, sets in scores.items():
        said = []
        for name, label in SETS.items():
            points, p_value = 100 * sets[name]["difference_difference"], sets[name]["corrected_p_value"]
            seeds = ", ".join(f"{score:.1%}" for score in sets[name]["seeds"])
            word = "within noise" if p_value >= SIGNIFICANT else ("better" if points > 0 else "worse")
            said.append(f"{label}: {points:+.1f} points, {word} (seeds {seeds})")
        against = sets["evolved"]["against_alpaca"]
        said.append(
            f"evolved rows against Code Alpaca alone: {100 * against['difference']:+.1f} points, "
            f"p = {against['p_value']:.2g}"
        )
        lines.append(f"- **{title}** {'; '.join(said)}.")
    for step, sets in answers.items():
        lengths = [
            f"{label} {sets[name]['mean_tokens']:.0f} tokens, {sets[name]['share_cut']:.0%} cut off"
            for name, label in {"base": "before", **SETS}.items()
        ]
        lines.append(f"- **Answers, {STEPS_OF[step]}:** {'; '.join(lengths)}.")
    return "\n".join(lines) + "\n"


def cell(found: Mapping[str, Any]) -> str:
    text = f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
    if "corrected_p_value" not in found:
        return text
    return text + f", {100 * found['difference_difference']:+.1f}, p = {found['corrected_p_value']:.2g}"


def draw(path: Path, trainings: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Writes the losses by step and the scores with their intervals as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), dpi=110, layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    for axes, (name, training) in zip(upper.subplots(1, len(SETS)), trainings.items(), strict=True):
        for seed, curve, heldout in zip(SEEDS, training["curves"], training["heldout_curves"], strict=True):
            axes.plot(*zip(*curve, strict=True), color=f"C{seed}", linewidth=0.8, alpha=0.6, label=f"seed {seed}")
            axes.plot(*zip(*heldout, strict=True), color=f"C{seed}", marker="o", linestyle="--")
        axes.set_title(f"{SETS[name]}: loss (dashed: held out)", fontsize=10)
        axes.set_xlabel("step")
        axes.legend(fontsize=8)
    axes = lower.subplots()
    labels = {"base": "before", **SETS}
    for offset, (name, label) in enumerate(labels.items()):
        values = [one[name] for one in scores.values()]
        places = [place + 0.2 * offset for place in range(len(scores))]
        heights = [100 * one["value"] for one in values]
        ends = [
            [100 * (one["value"] - one["low"]) for one in values],
            [100 * (one["high"] - one["value"]) for one in values],
        ]
        axes.bar(places, heights, 0.18, yerr=ends, capsize=3, label=label)
        for place, one in zip(places, values, strict=True):
            axes.plot(
                [place] * len(one.get("seeds", [])), [100 * seed for seed in one.get("seeds", [])], "k.", markersize=4
            )
    axes.set_xticks([place + 0.3 for place in range(len(scores))], list(scores))
    axes.set_ylabel("pass@1, %")
    axes.set_title("Scores with 95% intervals; dots are the three seeds", fontsize=10)
    axes.margins(y=0.18)  # room for the legend above the intervals
    axes.legend(fontsize=8, ncols=4, loc="upper center")
    with files.atomic_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help='{"instruction", "input", "output"}, JSON or JSONL')
    parser.add_argument("--offline", type=Path, help="a folder with the files of HumanEval+, MBPP and MBPP+")
    parser.add_argument("--run", type=Path, default=Path("runs/experiment"), help="where the pipeline's folders lie")
    options = parser.parse_args()
    rows = as_lines(options.rows.resolve(), options.run.resolve())
    code = run_jaxwiz(
        [
            "run",
            str(PIPELINE),
            f"out={options.run}",
            *pipeline_overrides(rows, options.offline and options.offline.resolve()),
        ]
    )
    if code:
        sys.exit(code)
    trainings, scores = read_trainings(options.run), read_scores(options.run)
    answers = read_answers(options.run)
    table = f"{table_of(trainings, scores)}\n{NOTES}\n{reading_of(scores, answers)}"
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "evolution": json.loads((options.run / "evolve" / "statistics.json").read_text()),
        "trainings": trainings,
        "scores": scores,
        "answers": answers,
    }
    files.write_text(RESULTS / "experiment.json", json.dumps(result, indent=1) + "\n")
    files.write_text(RESULTS / "experiment.md", table)
    draw(RESULTS / "experiment.png", trainings, scores)
    Console().print(Markdown(table))


if __name__ == "__main__":
    main()
