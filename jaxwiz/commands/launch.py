"""`jaxwiz launch`: a launch spec as the scripts under launch/ need it."""

import argparse
from pathlib import Path

from jaxwiz.commands import add_config_arguments

SUMMARY = "read a launch spec: print it as shell variables, or fill in a manifest; the scripts of launch/ call it"
PLATFORMS = ("local", "slurm", "tpu-vm", "gke", "skypilot", "ray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    add_config_arguments(parser)
    parser.add_argument("--on", choices=PLATFORMS, default="local", help="verify that it has what this platform needs")
    parser.add_argument("--fill", type=Path, metavar="FILE", help="print this manifest of launch/, filled in")


def run(options: argparse.Namespace) -> int:
    """Returns 0 after printing.

    Raises:
      UserError: the spec has faults, or lacks what the platform needs.
    """
    from jaxwiz.config import load_config
    from jaxwiz.launch.config import LaunchConfig
    from jaxwiz.launch.facts import checked_for
    from jaxwiz.launch.render import filled, shell_variables

    spec = load_config(options.config, LaunchConfig, options.overrides)
    checked_for(spec, options.on)
    print(filled(spec, options.fill) if options.fill else shell_variables(spec), end="")
    return 0
