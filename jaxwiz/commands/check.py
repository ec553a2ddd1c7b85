"""`jaxwiz check`: what can be said of a config before anything runs."""

import argparse

from jaxwiz.commands import add_config_arguments

SUMMARY = "verify all that can be verified about a config before running it"
EXIT_FAULTS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0, or 2 where something would stop the run, after printing what was found."""
    from jaxwiz.pipeline import check_file

    findings = check_file(options.config, options.overrides)
    for finding in findings:
        print(f"{finding.level:8}{finding.message}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{errors} error(s) in {len(findings)} finding(s)")
    return EXIT_FAULTS if errors else 0
