"""`jaxwiz show`: a config as it will be used."""

import argparse

from jaxwiz.commands import add_config_arguments

SUMMARY = "print a config with all that it extends, its overrides and its defaults filled in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Returns 0 after printing the resolved config."""
    from jaxwiz.pipeline import show_file

    print(show_file(options.config, options.overrides), end="")
    return 0
