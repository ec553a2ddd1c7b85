"""The command line: `jaxwiz <stage> CONFIG.yaml [a.b=value ...]`, and run, check, show, stages, compare.

Imports nothing heavy until a command needs it, so that `jaxwiz --help` answers at once. A fault in what the user gave
is one message and exit code 2, never a traceback.
"""

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxwiz import __version__
from jaxwiz.files import UserError
from jaxwiz.stages import STAGES

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # what a shell reports for SIGINT

# Faults of the user's machine rather than of jaxwiz: a message says all, a traceback nothing more.
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

_EXAMPLES = """examples:
  jaxwiz run configs/pipeline/quickstart.yaml          everything, small and offline
  jaxwiz check configs/train/wizardcoder.yaml          will it run? sizes, files, memory
  jaxwiz train configs/train/wizardcoder.yaml steps=10 optimizer.learning_rate=1e-5
  jaxwiz evaluate samples=completions.jsonl            pass@1 on HumanEval; a stage's defaults need no file
  jaxwiz compare runs/a/evaluate runs/b/evaluate       a leaderboard, and whether a difference is noise
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code.

    Args:
      arguments: the command line without the program's name; None: this process's.
    """
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options) if options.command in _COMMANDS else _run_stage(options)
    except UserError as error:
        print(f"jaxwiz {options.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in _MACHINE_FAULTS:
            raise
        print(f"jaxwiz {options.command}: {error}; mend it, and the same command continues from here", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"jaxwiz {options.command}: interrupted; the same command continues from here", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxwiz",
        description="From seed instructions to an evaluated code model, in JAX, from a laptop to a TPU pod.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxwiz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("run", "run a pipeline: every stage in order, resuming where an earlier run stopped"),
        ("check", "verify all that can be verified about a config before running it"),
        ("show", "print a config with all that it extends, its overrides and its defaults filled in"),
    ):
        _add_config_arguments(commands.add_parser(name, help=summary, description=summary))
    commands.add_parser("stages", help="list the stages with what each reads and writes")
    _add_compare_arguments(commands)
    for stage in STAGES.values():
        description = f"{stage.summary}.\n\nreads   {stage.reads}\nwrites  {', '.join(stage.results)} (below `out`)"
        _add_config_arguments(
            commands.add_parser(
                stage.name,
                help=stage.summary,
                description=description,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _add_compare_arguments(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "compare finished evaluations with each other and with published scores"
    parser = commands.add_parser(
        "compare",
        help=summary,
        description=f"{summary}.\n\nEach is tested against the first, task by task.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="an evaluation's folder; RUN:LABEL: one system of it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that shows the answers side by side")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="the config file")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="values that replace those of the file")


def _run_stage(options: argparse.Namespace) -> int:
    from jaxwiz.config import read_config_file, read_overrides
    from jaxwiz.step import parse_stage_config, run_step

    stage = STAGES[options.command]
    if "=" in str(options.config) and not options.config.exists():  # no file: an override of the stage's defaults
        data, source = read_overrides([str(options.config), *options.overrides]), "command line"
    else:
        data, source = read_config_file(options.config, options.overrides), str(options.config)
    config = parse_stage_config(stage, data, source)
    run_step(stage, config)
    return 0


def _run_pipeline(options: argparse.Namespace) -> int:
    from jaxwiz.pipeline import run_pipeline

    return run_pipeline(options.config, options.overrides)


def _check(options: argparse.Namespace) -> int:
    from jaxwiz.pipeline import check_file

    findings = check_file(options.config, options.overrides)
    for finding in findings:
        print(f"{finding.level:8}{finding.message}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{errors} error(s) in {len(findings)} finding(s)")
    return EXIT_BAD_INPUT if errors else 0


def _show(options: argparse.Namespace) -> int:
    from jaxwiz.pipeline import show_file

    print(show_file(options.config, options.overrides), end="")
    return 0


def _compare(options: argparse.Namespace) -> int:
    import json

    from jaxwiz.evaluate.compare import build_leaderboard, comparison_page, leaderboard_text, read_entries

    if options.html and options.html.is_dir():
        raise UserError(f"--html {options.html}: a folder; name the file to write")
    entries = read_entries(options.runs)
    board = build_leaderboard(entries)
    if options.html:
        from jaxwiz.files import write_text

        write_text(options.html, comparison_page(entries, board))
    print(json.dumps(board, indent=1) + "\n" if options.json else leaderboard_text(board), end="")
    return 0


def _list_stages(options: argparse.Namespace) -> int:
    for stage in STAGES.values():
        print(f"{stage.name:9} {stage.summary}")
        print(f"{'':9}   reads   {stage.reads}")
        print(f"{'':9}   writes  {', '.join(stage.results)}")
    return 0


_COMMANDS = {"run": _run_pipeline, "check": _check, "show": _show, "stages": _list_stages, "compare": _compare}


if __name__ == "__main__":
    sys.exit(main())
