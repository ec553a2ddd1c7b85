"""Makes the programs that judge an answer: the candidate's source, the checker that tests it, and its data.

    problem          candidate               checker
    HumanEval, MBPP  the answer              the benchmark's own tests, calling a stand-in (asserts.py)
    HumanEval+,      the answer              calls with base or with plus inputs, results compared as EvalPlus does
    MBPP+                                    (oracle.py); base and plus inputs are two programs, as they are there
    tests that need  the answer, the tests   none: one process, and a verdict that a program made for it could forge
    its classes      behind it

The helper functions of a prompt (HumanEval/32, 38 and 50) are the benchmark's own in the checker, also where an answer
defines them anew: `poly` returning 0 passes OpenAI's harness, and fails here. `redefines_helper` finds such answers, so
that they can be counted.
"""

import ast
import builtins
import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from jaxwiz.problems import asserts, fingerprint, oracle, syntax
from jaxwiz.problems.config import BenchmarkConfig, HumanEvalPlusConfig, MbppPlusConfig
from jaxwiz.problems.ground_truth import Key, Truth, ground_truth
from jaxwiz.problems.problem import Benchmark, Problem
from jaxwiz.problems.shipping import CHECKER, NUMPY_CHECKER, checker_data, source_of
from jaxwiz.sandbox import Program

Part = Literal["base", "plus"]

MOST_SECONDS = 60.0  # EvalPlus' limit for all calls together
GRACE_S = 2.0  # beyond it, for the start


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """What it takes to judge answers to a benchmark.

    Attributes:
      truth: what is right for EvalPlus' inputs; empty for benchmarks without.
      min_time_limit_s: seconds that a call may take at least.
      time_limit_factor: a call may also take so many times what the canonical solution took.
    """

    truth: Mapping[Key, Truth] = dataclasses.field(default_factory=dict)
    min_time_limit_s: float = 1.0
    time_limit_factor: float = 4.0

    def settings(self) -> str:
        """Returns what of this judge, besides data and rules, can move a verdict."""
        return f"{self.min_time_limit_s:g} s or {self.time_limit_factor:g} times"

    def program(self, problem: Problem, solution: str, part: Part = "base") -> Program:
        """Returns the program that passes exactly if `solution` is right.

        Args:
          problem: the task.
          solution: a whole program that defines the tested function.
          part: which inputs; benchmarks without plus inputs have "base" only.
        """
        if problem.plus is not None:
            return self._plus_program(problem, solution, part)
        tests = _tests(problem)
        if tests.calls is None:
            return Program(candidate=f"{solution}\n{tests.source}")
        # Tests stand behind an answer in one file, so that what it leaves open at its end is an error there as here.
        return Program(candidate=f"{solution}\n\n", checker=CHECKER, calls=tests.calls, data=tests.data)

    def _plus_program(self, problem: Problem, solution: str, part: Part) -> Program:
        data, timeout_s, helped = _plus_data(problem, part, self)
        name = problem.entry_point
        if not helped:
            return Program(candidate=solution, checker=NUMPY_CHECKER, calls=(name,), data=data, timeout_s=timeout_s)
        return Program(
            candidate=f"{solution}\n\n{_helpers(name)}",
            checker=NUMPY_CHECKER,
            calls=(name, "_jaxwiz_strict", "_jaxwiz_loose", "_jaxwiz_not_none"),
            data=data,
            timeout_s=timeout_s,
        )


def prepare_judge(config: BenchmarkConfig, benchmark: Benchmark, workers: int | None = None) -> Judge:
    """Returns the judge of a benchmark's answers, ground truth included, which takes minutes the first time.

    Args:
      config: that the benchmark was loaded with.
      benchmark: its tasks.
      workers: programs at a time; None: as many as there are cores.

    Raises:
      BenchmarkError: the ground truth can't be computed or kept.
    """
    if not isinstance(config, HumanEvalPlusConfig | MbppPlusConfig):
        return Judge()
    truth = ground_truth(benchmark, config.cache, workers)
    return Judge(truth, config.min_time_limit_s, config.time_limit_factor)


@dataclasses.dataclass(frozen=True)
class _Tests:
    """A task's tests: their source, what of the answer they call (None: they can't be split from it), their data."""

    source: str
    calls: tuple[str, ...] | None
    data: bytes


@functools.lru_cache(maxsize=2048)
def _tests(problem: Problem) -> _Tests:
    if problem.kind == "humaneval":
        helpers, defined = _prompt_helpers(problem)
        source = f"{problem.test}\ncheck({problem.entry_point})\n"
        calls = _calls(syntax.parse(source), {problem.entry_point}, defined)
        source = f"{helpers}\n{source}" if defined & _used_names(syntax.parse(source)) else source
    else:
        source = problem.test
        calls = _calls(syntax.parse(source), _functions(problem.canonical_solution), set())
    if calls is None:
        return _Tests(source, None, b"")
    payload = (source, syntax.compile_program(source, asserts.TESTS_NAME))
    return _Tests(source, calls, checker_data(asserts, payload))


def _calls(tests: ast.Module, functions: set[str], defined: set[str]) -> tuple[str, ...] | None:
    """Returns which of an answer's functions the tests call; None if the tests must share its process.

    They must where they use another of its names, such as a class, or hand it a function; OpenAI's own `check` is no
    part of the answer.
    """
    used = _used_names(tests) - _bound_names(tests)
    called = sorted(used & functions)
    unknown = used - functions - defined - set(dir(builtins))
    called_by = {id(node.func) for node in ast.walk(tests) if isinstance(node, ast.Call)}
    handed = [
        node
        for call in ast.walk(tests)
        if isinstance(call, ast.Call) and not (isinstance(call.func, ast.Name) and call.func.id == "check")
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        for node in ast.walk(argument)
        if isinstance(node, ast.Lambda)
        or (isinstance(node, ast.Name) and node.id in functions and id(node) not in called_by)
    ]
    return None if unknown or handed or not called else tuple(called)


def _used_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _bound_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def _functions(code: str) -> set[str]:
    return {node.name for node in syntax.parse(code).body if isinstance(node, ast.FunctionDef)}


def _prompt_helpers(problem: Problem) -> tuple[str, set[str]]:
    """Returns the source of what a prompt defines beside the function to complete, and its names."""
    try:
        tree = syntax.parse(problem.prompt)
    except SyntaxError:
        tree = syntax.parse(problem.prompt + problem.canonical_solution)
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == problem.entry_point)
    ]
    return ast.unparse(tree), {name for node in tree.body for name in _bound_at_top(node)}


def _bound_at_top(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return _bound_names(node)


def redefines_helper(problem: Problem, solution: str) -> bool:
    """Returns whether an answer defines a function anew that HumanEval's tests take from the prompt, and otherwise."""
    if problem.kind != "humaneval":
        return False
    used = _used_names(syntax.parse(problem.test)) - {problem.entry_point}
    try:
        own, given = _function_bodies(solution), _function_bodies(problem.prompt + problem.canonical_solution)
    except SyntaxError:
        return False
    return any(own.get(name) != body for name, body in given.items() if name in used)


def _function_bodies(code: str) -> dict[str, str]:
    """Returns each function's arguments and body, without its docstring, by name; of several, the last's."""
    bodies = {}
    for node in syntax.parse(code).body:
        if isinstance(node, ast.FunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
            bodies[node.name] = "\n".join(map(ast.dump, (node.args, *statements)))
    return bodies


@functools.lru_cache(maxsize=2048)
def _plus_data(problem: Problem, part: Part, judge: Judge) -> tuple[bytes, float, bool]:
    """Returns a plus checker's data, its time limit in seconds, and whether it calls the helpers."""
    assert problem.plus is not None
    truth = judge.truth[problem.task_id, part]
    limits_s = [max(judge.min_time_limit_s, judge.time_limit_factor * time_s) for time_s in truth.times_s]
    payload = {
        "name": problem.entry_point,
        "family": "humaneval" if problem.kind == "humaneval_plus" else "mbpp",
        "atol": problem.plus.atol,
        "arguments": [list(arguments) for arguments in getattr(problem.plus, part)],
        "expected": truth.expected,
        "limits_s": [limit + 4 * extra for limit, extra in zip(limits_s, truth.extra_s, strict=True)],
    }
    helped = any(truth.extra_s) or payload["name"] in oracle.NOT_NONE_TASKS
    timeout_s = min(MOST_SECONDS, sum(limits_s)) + GRACE_S + 4 * sum(truth.extra_s)
    return checker_data(oracle, payload), timeout_s, helped


def _helpers(name: str) -> str:
    """Returns source to put behind an answer, through which the checker asks for what can't cross as it is."""
    return f"""
_jaxwiz = {{}}
exec({source_of(fingerprint)!r}, _jaxwiz)
def _jaxwiz_strict(*arguments, _function={name}):
    return _jaxwiz["strict"](_function(*arguments))
def _jaxwiz_loose():
    return _jaxwiz["loose"]()
def _jaxwiz_not_none(*arguments, _function={name}):
    result = _function(*arguments)
    return result if isinstance(result, bool) else True if result is not None else None
"""
