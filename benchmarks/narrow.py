"""Prints what narrow weights and caches cost: in log-probabilities, in greedy text and, with --humaneval, in pass@1.

    python benchmarks/narrow.py runs/models/smollm2-135m-instruct/model
    python benchmarks/narrow.py runs/models/smollm2-135m-instruct/model --humaneval

Each line is one pair of number types, weights and cache, beside float32 for both. Scored are the canonical solutions of
HumanEval behind their prompts in the model's own template: what a token's log-probability changes by, and what that
makes of perplexity. Greedy answers to the same prompts are compared token by token, up to the template's end. pass@1 is
of all 164 tasks, greedy, by the sample and evaluate stages.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxwiz
from jaxwiz.evaluate.config import EvaluateConfig, SystemConfig
from jaxwiz.evaluate.run import run as evaluate
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.problems.problem import Problem
from jaxwiz.problems.prompting import instruction
from jaxwiz.sample.config import SampleConfig, SamplingConfig
from jaxwiz.sample.load import load_engine
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.requests import Request
from jaxwiz.sample.run import run as sample

RESULTS = Path(__file__).parent / "results" / "narrow.json"
WIDE = ("float32", "float32")
PAIRS = (WIDE, ("bfloat16", "bfloat16"), ("int8", "float32"), ("float32", "int8"), ("int8", "int8"))


def answers_and_scores(pair: tuple[str, str], problems: list[Problem], options: argparse.Namespace) -> tuple:
    """Returns the log-probabilities of all solutions in one line, and the greedy answers' tokens."""
    engine = load_engine(options.checkpoint, options.template, options.slots, *pair)
    prompter = Prompter(engine.tokenizer, options.template)
    prompts = prompter.encode_instructions([instruction(problem, "chat") for problem in problems])
    engine.reserve([len(prompt) + 512 for prompt in prompts])
    scores = [
        engine.score(prompt, engine.tokenizer.encode(problem.prompt + problem.canonical_solution, continues=True))
        for prompt, problem in zip(prompts, problems, strict=True)
    ]
    answers = engine.generate([Request(prompt, options.new_tokens) for prompt in prompts])
    return np.concatenate(scores), [answer.tokens for answer in answers]


def beside(found: tuple, wide: tuple) -> dict[str, Any]:
    """Returns how one pair's scores and answers differ from float32's."""
    change = found[0] - wide[0]
    same = [
        sum(np.cumprod([a == b for a, b in zip(*pair, strict=False)])) for pair in zip(found[1], wide[1], strict=True)
    ]
    return {
        "tokens_scored": len(change),
        "logprob_mean": round(float(found[0].mean()), 4),
        "mean_abs_change": round(float(np.abs(change).mean()), 4),
        "p99_abs_change": round(float(np.quantile(np.abs(change), 0.99)), 4),
        "perplexity_ratio": round(float(np.exp(-change.mean())), 4),
        "equal_answers": sum(ours == theirs for ours, theirs in zip(found[1], wide[1], strict=True)),
        "answers": len(same),
        "tokens_until_other": round(float(np.mean(same)), 1),
    }


def pass_at_1(options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Returns the share of HumanEval's tasks that each pair solves."""
    systems, benchmark = {}, HumanEvalConfig(limit=options.humaneval_tasks)
    for weights, cache in PAIRS:
        out = options.work / f"{weights}-{cache}"
        sample(
            SampleConfig(
                out=out, checkpoint=options.checkpoint, template=options.template, prompt_style="chat",
                sampling=SamplingConfig(max_new_tokens=256), dtype=weights, cache_dtype=cache, benchmark=benchmark,
            )
        )  # fmt: skip
        systems[f"{weights} + {cache}"] = SystemConfig(completions=out / "completions.jsonl")
    report = (
        evaluate(EvaluateConfig(out=options.work / "evaluate", systems=systems, benchmark=benchmark)) / "report.json"
    )
    found = json.loads(report.read_text())["systems"]
    return {pair: found[" + ".join(pair)]["pass_at"]["1"]["value"] for pair in PAIRS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--template", default="tokenizer")
    parser.add_argument("--tasks", type=int, default=40, help="of those scored and answered")
    parser.add_argument("--new-tokens", type=int, default=96, help="most tokens of the answers compared")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--humaneval", action="store_true", help="pass@1 of all tasks, too")
    parser.add_argument("--humaneval-tasks", type=int, default=None, help="of its tasks, only the first so many")
    parser.add_argument("--work", type=Path, default=Path("runs/narrow"), help="for completions; a rerun continues")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args()

    problems = list(load_benchmark(HumanEvalConfig()).problems.values())[: options.tasks]
    lines: list[dict[str, Any]] = []
    wide = answers_and_scores(WIDE, problems, options)
    for pair in PAIRS:
        found = wide if pair == WIDE else answers_and_scores(pair, problems, options)
        lines.append({"weights": pair[0], "cache": pair[1], **beside(found, wide)})
        print(lines[-1], flush=True)
    if options.humaneval:
        for line, score in zip(lines, pass_at_1(options).values(), strict=True):
            line["humaneval_pass_at_1"] = round(score, 4)
    result = {
        "jaxwiz": jaxwiz.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cpu_count": os.cpu_count(),
        "checkpoint": options.checkpoint.parent.name,
        "lines": lines,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(*(name.replace("_", " ") for name in lines[0]), title=f"{result['checkpoint']} on {result['device']}")
    for line in lines:
        table.add_row(*map(str, line.values()))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
