"""The command line: `jaxwiz <stage> CONFIG.yaml [a.b=value ...]`, and the commands of `jaxwiz/commands/`.

Imports nothing heavy until a command needs it, so that `jaxwiz --help` answers at once. A fault in what the user gave
is one message and exit code 2, never a traceback.
"""

import argparse
import errno
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from jaxwiz import __version__
from jaxwiz.commands import (
    add_config_arguments,
    audit,
    chat,
    check,
    compare,
    data_stats,
    doctor,
    evolve_loop,
    insight,
    launch,
    pipeline,
    plan,
    serve,
    show,
    stages,
    status,
)
from jaxwiz.exit_codes import FAILED, INTERRUPTED
from jaxwiz.files import UserError
from jaxwiz.stages import STAGES

# Faults of the user's machine rather than of jaxwiz: a message says all, a traceback nothing more.
_MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}

_OVERRIDE = re.compile(r"[A-Za-z][\w./-]*=")

_COMMANDS: dict[str, ModuleType] = {
    "run": pipeline,
    "check": check,
    "show": show,
    "stages": stages,
    "compare": compare,
    "plan": plan,
    "audit": audit,
    "insight": insight,
    "status": status,
    "evolve-loop": evolve_loop,
    "data stats": data_stats,
    "serve": serve,
    "chat": chat,
    "launch": launch,
    "doctor": doctor,
}

_EXAMPLES = """examples:
  jaxwiz run configs/pipeline/quickstart.yaml          everything, small and offline
  jaxwiz check configs/train/wizardcoder.yaml          will it run? sizes, files, memory
  jaxwiz plan RECIPE.yaml --topology v5p:4x4x4 --model configs/model/codellama-python-34b.yaml   will it fit a pod?
  jaxwiz train configs/train/wizardcoder.yaml steps=10 optimizer.learning_rate=1e-5
  jaxwiz evaluate samples=completions.jsonl            pass@1 on HumanEval; a stage's defaults need no file
  jaxwiz compare runs/a/evaluate runs/b/evaluate       a leaderboard, and whether a difference is noise
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the process's exit code.

    Args:
      arguments: the command line without the program's name; None: this process's.
    """
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        return _COMMANDS[options.command].run(options) if options.command in _COMMANDS else _run_stage(options)
    except (Exception, KeyboardInterrupt) as error:
        explained = _explain(error)
        if explained is None:
            _tell_others(error, FAILED)
            raise
        message, code = explained
        print(f"jaxwiz {options.command}: {message}", file=sys.stderr)
        _tell_others(error, code)
        return code


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the parsed command line; overrides may also stand behind options, as in `--dry-run a.b=1`.

    Raises:
      SystemExit: it is none that the program takes, or it asks for help.
    """
    parser = _parser()
    options, left = parser.parse_known_args(_joined(arguments))
    if left and not (hasattr(options, "overrides") and all(_OVERRIDE.match(word) for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if hasattr(options, "allow_change"):  # options that take words of their own leave overrides alone
        left += [word for word in options.allow_change if _OVERRIDE.match(word)]
        options.allow_change = [word for word in options.allow_change if not _OVERRIDE.match(word)]
        if options.profile and _OVERRIDE.match(options.profile):
            left.append(options.profile)
            options.profile = ""
    if left:
        options.overrides += left
    return options


def _joined(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with a command of two words as one; it begins with a stage's name, whose config follows."""
    command = " ".join(arguments[:2])
    return [command, *arguments[2:]] if command in _COMMANDS else list(arguments)


def _explain(error: BaseException) -> tuple[str, int] | None:
    """Returns what the user is told of an error, and the exit code; None for a fault of jaxwiz."""
    if isinstance(error, UserError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
        return f"{error}; mend it, and the same command continues from here", FAILED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues from here", INTERRUPTED
    return None


def _tell_others(error: BaseException, code: int) -> None:
    """Ends this process so that those that run the stage with it end, too; returns where there are none."""
    processes = sys.modules.get("jaxwiz.sharding.processes")
    if processes is not None:
        processes.current().fail(error, code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxwiz",
        description="From seed instructions to an evaluated code model, in JAX, from a laptop to a TPU pod.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxwiz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
        description = f"{summary}.\n\n{details}" if details else f"{summary}."
        form = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=summary, description=description, formatter_class=form)

    for name, command in _COMMANDS.items():
        command.add_arguments(add(name, command.SUMMARY, getattr(command, "DESCRIPTION", "")))
    for stage in STAGES.values():
        files = f"reads   {stage.reads}\nwrites  {', '.join(stage.results)} (below `out`)"
        files += "".join(
            f"\nsee also `jaxwiz {name}`: {command.SUMMARY}"
            for name, command in _COMMANDS.items()
            if name.startswith(f"{stage.name} ")
        )
        stage_parser = add(stage.name, stage.summary, files)
        add_config_arguments(stage_parser)
        if stage.name == "train":
            _add_train_arguments(stage_parser)
        if stage.name == "evolve":
            stage_parser.add_argument(
                "--dry-run", action="store_true", help="print calls, tokens, cost and time by stage, and ask nothing"
            )
    return parser


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        nargs="?",
        const="",
        metavar="FIRST:LAST",
        help="trace these steps for TensorBoard and Perfetto, by default the 4th to 8th of this run, and say how long "
        "the devices were busy",
    )
    parser.add_argument(
        "--allow-change",
        nargs="+",
        default=[],
        metavar="KEY",
        help="continue an interrupted run though these keys of its config, or the contents of these inputs, changed",
    )


def _train_options(options: argparse.Namespace) -> dict[str, object]:
    return {"profile": options.profile, "allow_change": tuple(options.allow_change)}


def _run_stage(options: argparse.Namespace) -> int:
    from jaxwiz.config import read_config_file, read_overrides
    from jaxwiz.sharding.processes import join
    from jaxwiz.step import parse_stage_config, run_step

    stage = STAGES[options.command]
    processes = join() if stage.by_many else None
    if "=" in str(options.config) and not options.config.exists():  # no file: an override of the stage's defaults
        data, source = read_overrides([str(options.config), *options.overrides]), "command line"
    else:
        data, source = read_config_file(options.config, options.overrides), str(options.config)
    config = parse_stage_config(stage, data, source)
    if getattr(options, "dry_run", False):
        from jaxwiz.evolve.forecast import dry_run

        print(dry_run(config), end="")
        return 0
    run_step(stage, config, **_train_options(options) if stage.name == "train" else {})
    if processes is not None:
        processes.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
