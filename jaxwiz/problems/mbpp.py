"""MBPP's task file: short tasks of a text, reference code and three assertions each; splits are ranges of ids.

The prompt of a task, where a base model goes on from it, is the usual one: text and assertions in a docstring.
"""

import ast
from pathlib import Path

from jaxwiz.problems import source, syntax
from jaxwiz.problems.problem import BenchmarkError, Problem

PUBLISHED = source.Release(
    "test",
    "8478a56b5daea733256fff11a2998234cd6e100cd20894093ea41c8d89459fda",
    "https://github.com/nlpxucan/WizardLM/raw/main/WizardCoder/data/mbpp.test.zip",
)
SPLITS = {"test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}


def parse_mbpp(text: bytes, file: Path, challenge_tests: bool = False, split: str = "test") -> dict[str, Problem]:
    """Returns {"Mbpp/11": Problem, ...} of a split in a task file's text, in its order.

    Args:
      text: of a file with that split alone, or with all 974 tasks.
      file: its path, for messages.
      challenge_tests: whether the challenge tests count too.
      split: one of `SPLITS`.

    Raises:
      BenchmarkError: it is no MBPP file; names file, line and field.
    """
    problems: dict[str, Problem] = {}
    ids = SPLITS[split]
    for where, row in source.rows(text, file):
        number = source.field(row, "task_id", int, where)
        if number not in ids:
            continue
        description, code, setup = (source.field(row, name, str, where) for name in ("text", "code", "test_setup_code"))
        examples = tuple(_texts(row, "test_list", where))
        asserts = [*examples, *(_texts(row, "challenge_test_list", where) if challenge_tests else ())]
        problem = Problem(
            task_id=f"Mbpp/{number}",
            prompt='"""\n' + "\n".join([description, *examples]) + '\n"""\n',
            test="\n".join([setup, *asserts] if setup else asserts) + "\n",
            entry_point=_tested_name(code, examples, where),
            canonical_solution=code,
            kind="mbpp",
            description=description,
            examples=examples,
        )
        if problem.task_id in problems:
            raise BenchmarkError(f"{where}: task {number} appears twice; keep one")
        problems[problem.task_id] = problem
    if not problems:
        raise BenchmarkError(f"{file}: no tasks {ids.start} to {ids.stop - 1} in it; is this the right file?")
    return problems


def _tested_name(code: str, asserts: tuple[str, ...], where: str) -> str:
    """Returns the function of `code` that the assertions call."""
    try:
        defined = [node.name for node in syntax.parse(code).body if isinstance(node, ast.FunctionDef)]
        called = {
            node.func.id
            for node in ast.walk(syntax.parse("\n".join(asserts)))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
    except SyntaxError as error:
        raise BenchmarkError(f"{where}: code and test_list must be Python ({error})") from None
    for name in defined:
        if name in called:
            return name
    raise BenchmarkError(f"{where}: the tests call none of the functions that the code defines")


def _texts(row: dict[str, object], name: str, where: str) -> list[str]:
    texts = source.field(row, name, list, where)
    if not all(isinstance(text, str) for text in texts):
        raise BenchmarkError(f"{where}: field {name!r} must be a list of strings")
    return texts
