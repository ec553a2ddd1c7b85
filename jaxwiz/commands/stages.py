"""`jaxwiz stages`: the stages with what each reads and writes."""

import argparse

from jaxwiz.stages import STAGES

SUMMARY = "list the stages with what each reads and writes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the command takes no arguments."""


def run(options: argparse.Namespace) -> int:
    """Returns 0 after printing the table."""
    for stage in STAGES.values():
        print(f"{stage.name:9} {stage.summary}")
        print(f"{'':9}   reads   {stage.reads}")
        print(f"{'':9}   writes  {', '.join(stage.results)}")
    return 0
