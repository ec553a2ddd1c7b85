"""The commands beside the stages, each a module with SUMMARY, `add_arguments(parser)` and `run(options) -> exit code`.

DESCRIPTION, where there is one, follows the summary in `jaxwiz COMMAND --help`. At import these modules need nothing
but the standard library, so that `jaxwiz --help` answers at once; what a command needs it imports when it runs.
"""

import argparse
from pathlib import Path


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds CONFIG.yaml and its overrides, as every stage takes them."""
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the config file")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="values that replace those of the file")
