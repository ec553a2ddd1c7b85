"""`jaxwiz evolve-loop`: rounds of evolution, each fine-tuned and scored, until the score falls."""

import argparse
from pathlib import Path

SUMMARY = "evolve, merge, shard, fine-tune and score round by round; stop on decline and keep the best"
DESCRIPTION = """Rounds are scored on a development set, which must not overlap a benchmark that is reported. An
interrupted loop continues where it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("loop", type=Path, metavar="LOOP.yaml", help="the loop's file, as in configs/loop/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="a.b=value",
        help="values that replace those of the file; train.steps=9 a step's",
    )
    parser.add_argument("--check", action="store_true", help="validate all of it and say what would run; run nothing")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code of the step that failed, or 0.

    Raises:
      UserError: a faulty config, a missing input, or a development set that overlaps a reported benchmark.
    """
    from jaxwiz.evolve_loop.rounds import load_loop
    from jaxwiz.evolve_loop.run import describe, run_loop

    loop = load_loop(options.loop, options.overrides)
    if options.check:
        print(describe(loop), end="")
        return 0
    return run_loop(loop)
