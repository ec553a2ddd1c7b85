"""`jaxwiz compare`: finished evaluations beside each other and published scores."""

import argparse
from pathlib import Path

SUMMARY = "compare finished evaluations with each other and with published scores"
DESCRIPTION = "Each is tested against the first, task by task."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="an evaluation's folder; RUN:LABEL: one system of it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that shows the answers side by side")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Returns 0 after printing the leaderboard.

    Raises:
      UserError: not finished evaluations, or ones that cannot be compared.
    """
    import json

    from jaxwiz.evaluate.compare import build_leaderboard, comparison_page, leaderboard_text, read_entries
    from jaxwiz.files import UserError, write_text

    if options.html and options.html.is_dir():
        raise UserError(f"--html {options.html}: a folder; name the file to write")
    entries = read_entries(options.runs)
    board = build_leaderboard(entries)
    if options.html:
        write_text(options.html, comparison_page(entries, board))
    print(json.dumps(board, indent=1) + "\n" if options.json else leaderboard_text(board), end="")
    return 0
