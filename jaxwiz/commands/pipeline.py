"""`jaxwiz run`: a pipeline, every step in order."""

import argparse

from jaxwiz.commands import add_config_arguments

SUMMARY = "run a pipeline: every stage in order, resuming where an earlier run stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code after running every step."""
    from jaxwiz.pipeline import run_pipeline

    return run_pipeline(options.config, options.overrides)
