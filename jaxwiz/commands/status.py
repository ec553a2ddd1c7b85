"""`jaxwiz status`: how a training run stands, from its folder."""

import argparse
from pathlib import Path

SUMMARY = "tell how a training run stands: progress, losses, speed, the last state saved, starts and why they ended"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="`out` of a train stage, running or not")


def run(options: argparse.Namespace) -> int:
    """Returns 0 after printing what the run's folder tells."""
    from jaxwiz.train.status import describe_run

    print(describe_run(options.folder), end="")
    return 0
