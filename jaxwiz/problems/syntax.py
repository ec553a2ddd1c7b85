"""Parses other people's Python without telling the user about their odd escapes."""

import ast
import warnings
from types import CodeType


def parse(source: str) -> ast.Module:
    """Returns the syntax tree of a program; raises SyntaxError, ValueError, RecursionError or MemoryError if none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def compile_program(source: str, name: str) -> CodeType:
    """Returns a program's code, whose file is called `name`; raises as `parse`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(source, name, "exec", dont_inherit=True)
