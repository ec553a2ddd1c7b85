"""`jaxwiz audit`: check every row of a dataset, or look at one."""

import argparse
from pathlib import Path

SUMMARY = "check every row of a dataset, or show one with its loss mask, examples and control tokens"
DESCRIPTION = "Exit code 1: faults were found."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("dataset", type=Path, metavar="SHARDS", help="the data stage's folder, or `dataset` in it")
    parser.add_argument("--row", type=int, metavar="N", help="show this row of the split, from 0, instead of checking")
    parser.add_argument("--split", default="train", help="the split that --row counts in (train)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with all faults and some rows")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="default: the one that the data stage used")


def run(options: argparse.Namespace) -> int:
    """Returns 0, or 1 where faults were found.

    Raises:
      UserError: no such dataset, row or tokenizer.
    """
    from jaxwiz.data.audit_command import audit, show_row
    from jaxwiz.files import UserError

    if options.row is not None:
        show_row(options.dataset, options.row, options.split, options.tokenizer)
        return 0
    if options.html and options.html.is_dir():
        raise UserError(f"--html {options.html}: a folder; name the file to write")
    return 1 if audit(options.dataset, options.tokenizer, options.html) else 0
