"""Wrong versions of right programs, the same ones every time: what a scorer must judge as other scorers do.

    mutants = list(mutate(source, entry_point, count=3, seed=0))

Each changes one thing: an operator, a constant, a comparison, a condition, a returned value's type or last digits, or
it raises, exits, never ends, forgets to return, or alters its argument.
"""

import ast
import copy
import random
from collections.abc import Callable, Iterator

SWAPPED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}

# What is returned instead of the value `{}`.
RETURNED = (
    "list({})",
    "tuple({})",
    "set({})",
    "iter({})",
    "str({})",
    "int({})",
    "float({})",
    "bool({})",
    "not {}",
    "({},)",
    "[{}]",
    "None",
    "({} or None)",
    "({}) + 1e-7",
    "({}) + 1e-5",
    "({}) * (1 + 1e-8)",
    "[item + 3e-7 for item in {}]",
    "[float(item) for item in {}]",
    "__import__('numpy').float64({})",
    "__import__('numpy').array({})",
    "__import__('collections').Counter({})",
    "__import__('decimal').Decimal({})",
    "__import__('fractions').Fraction({})",
    "dict({}).keys()",
    "reversed({})",
    "sorted({})",
    "{} if isinstance({}, int) else {}[:-1]",
    "float('nan')",
    "complex({})",
)
# What stands first in the function's body.
FIRST = (
    "raise ValueError('mutant')",
    "raise SystemExit(0)",
    "import sys; sys.exit(0)",
    "import os; os._exit(0)",
    "while True: pass",
    "import time; time.sleep(30)",
    "return",
    "return NotImplemented",
    "return (lambda: None)",
    "print('x' * 10000)",
    "input()",
    "assert False",
    "global mutant_calls; mutant_calls = globals().get('mutant_calls', 0) + 1; assert mutant_calls < 3",
    "try:\n    while True: pass\nexcept Exception: raise KeyError('slow')",
)
# What stands behind the program.
LAST = (
    "raise RuntimeError('loading')",
    "import sys; sys.exit(0)",
    "del {name}",
    "{name} = 3",
    "x = (",
    "print({name})",
)


def mutate(source: str, entry_point: str, count: int, seed: str) -> Iterator[str]:
    """Yields `count` different programs that are not `source`.

    Args:
      source: a program that defines `entry_point`.
      entry_point: a function's name.
      count: how many to make.
      seed: any text; the same text gives the same programs.
    """
    draw = random.Random(f"{seed}:{entry_point}")
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    kinds: list[Callable[[ast.Module, str, random.Random], str | None]] = [
        _swap, _swap, _swap, _number, _number, _drop, _return, _return, _return, _first, _last,
    ]  # fmt: skip
    while len(seen) <= count:
        made = draw.choice(kinds)(copy.deepcopy(tree), entry_point, draw)
        if made is not None and made not in seen:
            seen.add(made)
            yield made


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name][-1]


def _swap(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    places = [
        node
        for node in ast.walk(_function(tree, name))
        if (isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED)
        or (isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED)
    ]
    if not places:
        return None
    node = draw.choice(places)
    if isinstance(node, ast.Compare):
        node.ops[0] = SWAPPED[type(node.ops[0])]()
    else:
        node.op = SWAPPED[type(node.op)]()
    return ast.unparse(tree)


def _number(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    places = [
        node
        for node in ast.walk(_function(tree, name))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool)
    ]
    if not places:
        return None
    node = draw.choice(places)
    node.value = (not node.value) if type(node.value) is bool else node.value + draw.choice((1, -1))
    return ast.unparse(tree)


def _drop(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    places = [
        (node.body, place)
        for node in ast.walk(_function(tree, name))
        if isinstance(node, ast.For | ast.While | ast.If | ast.FunctionDef)
        for place in range(len(node.body))
    ]
    body, place = draw.choice(places)
    body[place] = ast.Pass()
    return ast.unparse(ast.fix_missing_locations(tree))


def _return(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    places = [node for node in ast.walk(_function(tree, name)) if isinstance(node, ast.Return) and node.value]
    if not places:
        return None
    node = draw.choice(places)
    assert node.value is not None
    node.value = ast.parse(draw.choice(RETURNED).replace("{}", f"({ast.unparse(node.value)})"), mode="eval").body
    return ast.unparse(tree)


def _first(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    _function(tree, name).body[:0] = ast.parse(_function_body(draw.choice(FIRST))).body[0].body  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _function_body(code: str) -> str:
    return "def f():\n" + "\n".join(f"    {line}" for line in code.split("\n"))


def _last(tree: ast.Module, name: str, draw: random.Random) -> str | None:
    return ast.unparse(tree) + "\n" + draw.choice(LAST).format(name=name) + "\n"
