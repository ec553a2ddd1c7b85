"""`jaxwiz chat`: talk to a checkpoint in the terminal."""

import argparse
import sys
from pathlib import Path

SUMMARY = "talk to a checkpoint in the terminal"
DESCRIPTION = """Settings are those of docs/serving.md, for instance template=chatml sampling.temperature=0.7.

Answers appear on stdout as they are drawn. A turn is a line, or several lines between lines of three quotes; /help
lists the commands. template=none has the model go on from what is typed: completion of a function that was begun."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint folder")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings that replace the defaults")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code once there is no more input.

    Raises:
      UserError: a setting or the checkpoint is unusable.
    """
    from jaxwiz.config import parse_config, read_overrides
    from jaxwiz.serve.chat import chat
    from jaxwiz.serve.config import ChatConfig

    data = read_overrides(options.overrides, {"checkpoint": str(options.checkpoint)})
    chat(parse_config(data, ChatConfig, "jaxwiz chat"), sys.stdin, sys.stdout)
    return 0
