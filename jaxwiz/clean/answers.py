"""Finds the functions in a training answer, as far as a benchmark's tests could call them.

Answers are prose with fenced code, bare code, or neither. Code that does not parse, or that defines no function (a
script), can't be called: the tests' tier has nothing to say about such a row. Methods of a class that can be made
without arguments count as functions, as `Solution().method`.

What an answer does beside defining (demonstrations, input) must not keep its functions from being tested: expressions
are left out, and other statements may fail.
"""

import ast
import dataclasses
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from jaxwiz.problems import syntax

MOST_POSITIONAL = 100  # what `*args` takes

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(r"'(?:[^'\\]|\\.)*'|[^']+")
_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Function:
    """A function that an answer defines.

    Attributes:
      source: a program that defines it, made of the answer.
      call: the expression that gives it, "name" or "Class().name".
      name: its name.
      fewest: positional arguments that it needs.
      most: positional arguments that it takes.
      skeleton: its code with all names of its own replaced; equal for programs that differ only in these.
      size: its statements and expressions; "return x + y" has four.
    """

    source: str
    call: str
    name: str
    fewest: int
    most: int
    skeleton: str
    size: int


def functions_of(answer: str) -> list[Function]:
    """Returns the functions that an answer defines, in its order; the last one of each name counts."""
    tree = _tree_of(answer)
    if tree is None:
        return []
    source = _defining_source(tree)
    found: dict[str, Function] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _function(source, tree, node, node.name)
        elif isinstance(node, ast.ClassDef):
            for method in _methods(node):
                call = f"{node.name}().{method.name}"
                found[call] = _function(source, tree, method, call, bound=not _is_static(method))
    return list(found.values())


def skeleton_of(function: ast.FunctionDef, program: ast.Module) -> str:
    """Returns a function's code with the names that its program gives numbered in the order of their appearance.

    Annotations and the docstring are left out; names from elsewhere, attributes and constants stay as they are.
    """
    bound = {node.name for node in program.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
    numbers: dict[str, str] = {}
    bare = ast.Module(_statements_of(function), [])
    words = _TOKEN.findall(ast.dump(ast.arguments(**_arguments_without_annotations(function))) + ast.dump(bare))
    return "".join(numbers.setdefault(word, f"#{len(numbers)}") if word[1:-1] in bound else word for word in words)


def solution_skeleton(program: str, name: str) -> str:
    """Returns the skeleton of the function of that name in a program; "" if it has none."""
    tree = syntax.parse(program)
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return skeleton_of(nodes[-1], tree) if nodes else ""


def _tree_of(answer: str) -> ast.Module | None:
    """Returns the Python in an answer: its fenced blocks together if they parse, else the first that does, or all."""
    blocks = [match.group(2) for match in _FENCE.finditer(answer)]
    for text in ["\n".join(blocks), *blocks] if blocks else [answer]:
        if "def " in text:
            try:
                return syntax.parse(text)
            except _FAULTS:
                continue
    return None


def _defining_source(tree: ast.Module) -> str:
    lines = ["from typing import *"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            lines += ["try:", textwrap.indent(ast.unparse(node), "    "), "except Exception:", "    pass"]
    return "\n".join(lines) + "\n"


def _function(source: str, tree: ast.Module, node: ast.FunctionDef, call: str, bound: bool = False) -> Function:
    positional = len(node.args.posonlyargs) + len(node.args.args) - bound
    required = max(0, positional - len(node.args.defaults))
    most = MOST_POSITIONAL if node.args.vararg else positional
    return Function(source, call, node.name, required, most, skeleton_of(node, tree), _size(node))


def _size(function: ast.FunctionDef) -> int:
    nodes = (node for statement in _statements_of(function) for node in ast.walk(statement))
    return sum(isinstance(node, ast.stmt | ast.expr) for node in nodes)


def _statements_of(function: ast.FunctionDef) -> list[ast.stmt]:
    """Returns a function's statements without its docstring."""
    first, *rest = function.body
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return rest if documented else function.body


def _arguments_without_annotations(function: ast.FunctionDef) -> dict[str, Any]:
    arguments = function.args
    bare = {"posonlyargs": [], "args": [ast.arg(one.arg) for one in [*arguments.posonlyargs, *arguments.args]]}
    rest = {"vararg": arguments.vararg and ast.arg(arguments.vararg.arg), "kwonlyargs": arguments.kwonlyargs}
    return {
        **bare,
        **rest,
        "kw_defaults": arguments.kw_defaults,
        "kwarg": arguments.kwarg,
        "defaults": arguments.defaults,
    }


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    starts = [method for method in methods if method.name == "__init__"]
    if any(len(start.args.args) - 1 > len(start.args.defaults) for start in starts):
        return
    yield from (method for method in methods if not method.name.startswith("__"))


def _is_static(method: ast.FunctionDef) -> bool:
    return any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in method.decorator_list)
