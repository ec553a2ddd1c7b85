"""EvalPlus' task files, HumanEval+ and MBPP+: the arguments of every call, decoded from JSON as EvalPlus 0.3.1 does.

JSON has no tuples, sets or complex numbers, so about 60 tasks of MBPP+ say by their number how their arguments are to
be rebuilt.

HumanEval+ v0.1.9 and v0.1.10 have the same fields and 164 tasks. v0.1.9 has 123,739 plus inputs, 1,056 more: 917 of
HumanEval/1 (parentheses that don't balance) and 139 of HumanEval/28 (a text or a dict in place of a list). v0.1.10
leaves them out because the prompts forbid them, and mends the contracts of HumanEval/99 and 160. EvalPlus runs no
contract when it scores, so its rules for right and wrong hold for both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxwiz.problems import source
from jaxwiz.problems.problem import BenchmarkError, Kind, PlusTests, Problem

HUMANEVAL_PLUS = source.Release(
    "v0.1.10",
    "42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f",
    "https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.10/HumanEvalPlus.jsonl.gz",
)
HUMANEVAL_PLUS_V019 = source.Release(
    "v0.1.9",
    "50d50fda1ecf4c9168d762456ae29c1d8b8b922e68c66964f7891c98d93a04b7",
    "https://github.com/evalplus/humanevalplus_release/releases/download/v0.1.9/HumanEvalPlus.jsonl.gz",
)
MBPP_PLUS = source.Release(
    "v0.2.0",
    "b54e762755248ca411b523c917fa9f93c07b5ff2966bf60b3917b853926a3dad",
    "https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
)

Arguments = list[Any]


def parse_evalplus(text: bytes, file: Path, kind: Kind) -> dict[str, Problem]:
    """Returns {task id: Problem} of a task file's text, in its order.

    Args:
      text: of the file.
      file: its path, for messages.
      kind: "humaneval_plus" or "mbpp_plus".

    Raises:
      BenchmarkError: it is no such file; names file, line and field.
    """
    problems: dict[str, Problem] = {}
    for where, row in source.rows(text, file):
        task_id, prompt, entry_point, solution = (
            source.field(row, name, str, where) for name in ("task_id", "prompt", "entry_point", "canonical_solution")
        )
        if not task_id.startswith("HumanEval/" if kind == "humaneval_plus" else "Mbpp/"):
            raise BenchmarkError(f"{where}: task {task_id!r} in a file of benchmark.kind = {kind!r}; the right file?")
        if task_id in problems:
            raise BenchmarkError(f"{where}: task {task_id!r} appears twice; keep one")
        description, examples = _described(prompt) if kind == "mbpp_plus" else ("", ())
        problems[task_id] = Problem(
            task_id,
            prompt,
            "",
            entry_point,
            solution,
            kind=kind,
            description=description,
            examples=examples,
            plus=PlusTests(
                base=_calls(row, "base_input", task_id, where),
                plus=_calls(row, "plus_input", task_id, where),
                atol=source.field(row, "atol", (int | float), where),  # type: ignore[arg-type]
            ),
        )
    return problems


def _calls(row: dict[str, Any], name: str, task_id: str, where: str) -> list[Arguments]:
    calls = source.field(row, name, list, where) if row.get(name) != {} else []  # Mbpp/793 writes "none" as {}
    rebuild = _REBUILD.get(int(task_id.removeprefix("Mbpp/"))) if task_id.startswith("Mbpp/") else None
    try:
        return [rebuild(arguments) for arguments in calls] if rebuild else calls
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise BenchmarkError(f"{where}: field {name!r} of {task_id} has arguments of another form ({error})") from None


def _described(prompt: str) -> tuple[str, tuple[str, ...]]:
    """Returns text and assertion of an MBPP+ prompt, a docstring of both."""
    lines = prompt.strip().removeprefix('"""').removesuffix('"""').strip().split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith("assert")]
    cut = starts[0] if starts else len(lines)
    return "\n".join(lines[:cut]).strip(), ("\n".join(lines[cut:]),) if starts else ()


def _tuples(arguments: Arguments) -> Arguments:
    return [tuple(argument) for argument in arguments]


def _lists_of_tuples(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in argument] for argument in arguments]


def _tuples_of_tuples(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) for item in argument) for argument in arguments]


def _first_list_of_tuples(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in arguments[0]], arguments[1]]


def _first_tuple(arguments: Arguments) -> Arguments:
    return [tuple(arguments[0]), arguments[1]]


def _second_tuple(arguments: Arguments) -> Arguments:
    return [arguments[0], tuple(arguments[1])]


def _all_tuples(arguments: Any) -> Any:
    return tuple(map(_all_tuples, arguments)) if isinstance(arguments, list) else arguments


# What becomes of a task's arguments, by the task's number.
_REBUILD: dict[int, Callable[[Arguments], Any]] = {
    **dict.fromkeys(
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
        _tuples,
    ),
    **dict.fromkeys((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), _lists_of_tuples),
    **dict.fromkeys((259, 401, 445), _tuples_of_tuples),
    **dict.fromkeys((75, 413, 444, 753), _first_list_of_tuples),
    **dict.fromkeys((250, 405, 446, 617, 720, 763, 808), _first_tuple),
    **dict.fromkeys((106, 750), _second_tuple),
    **dict.fromkeys((580, 615, 791), _all_tuples),
    115: lambda arguments: [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]],
    124: lambda arguments: (float(arguments[0]), complex(arguments[1])),
    252: lambda arguments: [complex(arguments[0])],
    278: lambda arguments: [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])],
    307: lambda arguments: [tuple(arguments[0]), arguments[1], arguments[2]],
    722: lambda arguments: [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]],
}
