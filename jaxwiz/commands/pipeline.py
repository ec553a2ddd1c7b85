"""`jaxwiz run`: a pipeline, every step in order."""

import argparse

from jaxwiz.commands import add_config_arguments

SUMMARY = "run a pipeline: every stage in order, resuming where an earlier run stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what each step will take and write; run nothing")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code after running every step."""
    if options.dry_run:
        from jaxwiz.dry_run import describe_run

        for line in describe_run(options.config, options.overrides):
            print(line, flush=True)
        return 0
    from jaxwiz.pipeline import run_pipeline

    return run_pipeline(options.config, options.overrides)
