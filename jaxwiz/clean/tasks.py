"""What cleaning knows of a benchmark's tasks: their texts, examples and tests, plain data that travels to any node.

A task that two benchmarks share, such as HumanEval/0 of HumanEval and HumanEval+, is one task here with the texts of
both. Its tests are those of the benchmark with assertions; a task that EvalPlus alone has is tested by its base inputs
and its canonical solution.
"""

import ast
import dataclasses
import marshal
import re
from collections.abc import Iterable, Sequence

from jaxwiz.files import UserError
from jaxwiz.problems import oracle, syntax
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.config import BenchmarkConfig
from jaxwiz.problems.problem import Benchmark, Problem
from jaxwiz.problems.programs import Judge

_DOCSTRING = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)
_DOCTEST = re.compile(r"^[ \t]*>>>[ \t]*(.+)\n[ \t]*(?!>>>|\"\"\"|''')(\S.*)$", re.MULTILINE)
_CANDIDATE = "candidate"  # what HumanEval's `check` calls the function


class CleanError(UserError):
    """Something that rows can't be cleaned with."""


@dataclasses.dataclass(frozen=True)
class TaskTest:
    """How a function is tested.

    Attributes:
      code: marshalled code; of assertions, or of the canonical solution where there are `inputs`.
      inputs: marshalled list of a list of arguments for each call; empty: the code tests by itself.
      shared: source of tests that must run in the function's own process; empty: none.
      arities: numbers of arguments that the tests call it with.
      strength: how much a pass says: assertions, and different results other than True, False and None.
      as_set: whether results are compared as sets.
      not_none: whether results are only compared by being None.
    """

    code: bytes
    inputs: bytes
    shared: str
    arities: tuple[int, ...]
    strength: int
    as_set: bool = False
    not_none: bool = False


@dataclasses.dataclass(frozen=True)
class Task:
    """One benchmark task.

    Attributes:
      task_id: for instance "HumanEval/0" or "Mbpp/11".
      benchmarks: those that have it.
      entry_point: name of the tested function.
      questions: each text that a model may be asked with, or a whole part of it.
      description: what is asked, in words.
      solution: the reference program.
      solution_texts: the program and, of HumanEval, the body alone.
      examples: arguments and values of documented calls.
      test: how answers are tested.
    """

    task_id: str
    benchmarks: tuple[str, ...]
    entry_point: str
    questions: tuple[str, ...]
    description: str
    solution: str
    solution_texts: tuple[str, ...]
    examples: tuple[str, ...]
    test: TaskTest

    @property
    def label(self) -> str:
        """Names the task in reports, for instance "HumanEval/0 (humaneval, humaneval_plus)"."""
        return f"{self.task_id} ({', '.join(self.benchmarks)})"


@dataclasses.dataclass(frozen=True)
class Used:
    """A benchmark that rows were held against.

    Attributes:
      name: its kind.
      version: of its data, or "unknown".
      sha256: of its task file's text.
      file: name of the task file.
      tasks: how many.
    """

    name: str
    version: str
    sha256: str
    file: str
    tasks: int


def load_tasks(configs: Sequence[BenchmarkConfig]) -> tuple[list[Used], list[Task]]:
    """Returns the benchmarks that a config names and their tasks, those of HumanEval first.

    Raises:
      UserError: one can't be had, or is named twice.
    """
    whole = [dataclasses.replace(config, ids=(), limit=None) for config in configs]
    for config in whole:
        if whole.count(config) > 1:
            raise CleanError(f"clean.benchmarks: {config.kind!r} is named twice; name each benchmark once")
    benchmarks = [_load(config) for config in configs]
    used = [Used(one.name, one.version, one.sha256, one.file, len(one.problems)) for one in benchmarks]
    return used, tasks_of(benchmarks)


def tasks_of(benchmarks: Iterable[Benchmark]) -> list[Task]:
    """Returns the tasks of some benchmarks; one that several share comes once."""
    same: dict[str, list[Problem]] = {}
    for benchmark in sorted(benchmarks, key=lambda one: one.name.endswith("plus")):
        for task_id, problem in benchmark.problems.items():
            same.setdefault(task_id, []).append(problem)
    return [_task(problems) for problems in same.values()]


def docstring_of(problem: Problem) -> str:
    """Returns the docstring of the function to complete, or all of the prompt's text if it has none."""
    start = max(0, problem.prompt.find(f"def {problem.entry_point}"))
    match = _DOCSTRING.search(problem.prompt, start)
    return match.group(2) if match else problem.prompt


def _load(config: BenchmarkConfig) -> Benchmark:
    try:
        return load_benchmark(config)
    except UserError as error:
        raise CleanError(f"clean.benchmarks, {config.kind}: {error}, or leave it out of clean.benchmarks") from None


def _task(problems: Sequence[Problem]) -> Task:
    first = problems[0]
    texts = [text for problem in problems for text in _solution_texts(problem)]
    return Task(
        task_id=first.task_id,
        benchmarks=tuple(problem.kind for problem in problems),
        entry_point=first.entry_point,
        questions=_distinct(text for problem in problems for text in _questions(problem)),
        description=first.description or _DOCTEST.sub("", docstring_of(first)),
        solution=first.canonical_solution if _is_mbpp(first) else first.prompt + first.canonical_solution,
        solution_texts=_distinct(texts),
        examples=_distinct(text for problem in problems for text in _examples(problem)),
        test=_plus_test(first) if first.plus else _assert_test(first),
    )


def _is_mbpp(problem: Problem) -> bool:
    return problem.kind.startswith("mbpp")


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text.strip()))


def _questions(problem: Problem) -> list[str]:
    if _is_mbpp(problem):
        asserts = [line for example in problem.examples for line in example.splitlines()]
        return [problem.description, "\n".join([problem.description, *asserts]), *asserts]
    docstring = docstring_of(problem)
    return [problem.prompt, docstring, _DOCTEST.sub("", docstring)]


def _solution_texts(problem: Problem) -> list[str]:
    if _is_mbpp(problem):
        return [problem.canonical_solution]
    return [problem.prompt + problem.canonical_solution, problem.canonical_solution]


def _examples(problem: Problem) -> list[str]:
    """Returns arguments and value of each call that the docstring, or an assertion, shows."""
    if not _is_mbpp(problem):
        found = []
        for call, value in _DOCTEST.findall(problem.prompt):
            found += [call.strip().partition("(")[2].removesuffix(")"), value]
        return found
    nodes = [node for example in problem.examples for node in ast.walk(syntax.parse(example))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and _called(node) == problem.entry_point]
    values = [node.comparators[0] for node in nodes if isinstance(node, ast.Compare)]
    arguments = [", ".join(ast.unparse(argument) for argument in call.args) for call in calls]
    return arguments + [ast.unparse(value) for value in values]


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _assert_test(problem: Problem) -> TaskTest:
    # The judge says what evaluation runs: (module of the assertions, (source, code)) or, unsplit, the whole program.
    program = Judge().program(problem, "")
    shared = program.candidate.strip() if not program.checker else ""
    source, code = (shared, None) if shared else marshal.loads(program.data)[1]
    tree = syntax.parse(source)
    names = {problem.entry_point, _CANDIDATE}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) in names]
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    compared = [node.test.comparators[0] for node in asserts if isinstance(node.test, ast.Compare)]
    results = {ast.unparse(node) for node in compared} - {"True", "False", "None"}
    return TaskTest(
        code=b"" if shared else marshal.dumps(code),
        inputs=b"",
        shared=shared,
        arities=tuple(sorted({len(call.args) for call in calls})),
        strength=len(asserts) + len(results),
    )


def _plus_test(problem: Problem) -> TaskTest:
    assert problem.plus is not None
    calls = [list(arguments) for arguments in problem.plus.base]
    code = syntax.compile_program(problem.solution(problem.canonical_solution), f"<{problem.task_id}>")
    return TaskTest(
        code=marshal.dumps(code),
        inputs=marshal.dumps(calls),
        shared="",
        arities=tuple(sorted({len(arguments) for arguments in calls})),
        strength=len(calls),
        as_set=problem.entry_point in oracle.SET_TASKS,
        not_none=problem.entry_point in oracle.NOT_NONE_TASKS,
    )
