"""`jaxwiz plan`: compile a recipe's step for accelerators that are not here."""

import argparse
from pathlib import Path

from jaxwiz.commands import add_config_arguments

SUMMARY = "compile a recipe's step for TPUs that are not here: does it fit, what does it move, how fast can it be"
DESCRIPTION = "Needs libtpu, no TPU, and neither the recipe's checkpoint nor its dataset."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)
    parser.add_argument("--topology", required=True, metavar="v5e:16x16", help="v4, v5e, v5p or v6e, and shape")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="slices of this topology (1)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="shape (YAML), config.json or checkpoint")
    parser.add_argument("--length", type=int, metavar="T", help="tokens of a row; default: the dataset's, else 2048")
    parser.add_argument("--search", action="store_true", help="find the largest micro-batch that fits")
    parser.add_argument("--decode", action="store_true", help="the sampler's decode step instead of the train step")
    parser.add_argument("--rows", type=int, default=16, metavar="N", help="with --decode: sequences at a time (16)")
    parser.add_argument("--slots", type=int, default=2048, metavar="N", help="with --decode: cache of each (2048)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there, too")


def run(options: argparse.Namespace) -> int:
    """Returns 0 if the step fits, 1 if not.

    Raises:
      UserError: the recipe or the topology is unusable.
    """
    from jaxwiz.plan.command import run_plan

    return run_plan(options)
