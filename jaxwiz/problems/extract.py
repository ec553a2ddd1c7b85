"""Takes code out of what a model answered.

    mode         does
    wizardcoder  what WizardCoder's released scripts do, bugs included: comparable with published scores
    robust       any fence or none, prose around the code, several blocks, wrong indentation: the named function
    completion   nothing but cutting a base model's text where the answer has ended

The result is put behind the task's prompt and may define the function again.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from typing import Literal, get_args

from jaxwiz.problems import syntax
from jaxwiz.problems.problem import Kind, Problem
from jaxwiz.problems.prompting import stop_strings

ExtractMode = Literal["wizardcoder", "robust", "completion"]
EXTRACT_MODES: tuple[ExtractMode, ...] = get_args(ExtractMode)

# Where the released scripts cut, in this order, after the fence; each benchmark has a script of its own.
_FENCE_ENDS: dict[Kind, str] = {"humaneval": "```", "humaneval_plus": "```", "mbpp": "\n```", "mbpp_plus": "\n```"}
_CUTS: dict[Kind, tuple[str, ...]] = {
    "humaneval": ('if __name__ == "__main__":', "# Example usage"),
    "humaneval_plus": ('if __name__ == "__main__":', "# Example usage"),
    "mbpp": ('if __name__ == "__main__":', "# Example usage", "# Test examples"),
    "mbpp_plus": ('if __name__ == "__main__":', "# Example usage", "assert"),
}

_OPENING = re.compile(r"(`{3,}|~{3,})[ \t]*([^\n`~]*)$")
_OTHER_LANGUAGES = {
    *("bash", "sh", "shell", "console", "text", "txt", "output", "json"),
    *("javascript", "js", "cpp", "java"),
}
_CODE_START = re.compile(r"^[ \t]*(?:(?:async )?def |class |@|import \w|from [\w.]+ import )", re.MULTILINE)


def extract(raw: str, problem: Problem, mode: ExtractMode) -> str:
    """Returns the code in `raw`.

    Args:
      raw: the model's text, untouched.
      problem: the task that it answers.
      mode: one of EXTRACT_MODES.
    """
    if mode == "wizardcoder":
        return _extract_wizardcoder(raw, problem.kind)
    if mode == "robust":
        return _extract_robust(raw, problem)
    return _cut_at_first(raw, stop_strings("completion", problem.kind))


def _extract_wizardcoder(raw: str, kind: Kind) -> str:
    """Follows the released post-processing step by step; only what it cuts does it strip."""
    text = raw.split("### Response:")[-1]  # some of the published texts begin with the prompt
    text = text.replace("\t", "    ").replace("\r", "")
    if "```python" in text:
        text = text[text.index("```python") :].strip().replace("```python", "")
        text = _cut_and_strip(text, _FENCE_ENDS[kind])
    for end in _CUTS[kind]:
        text = _cut_and_strip(text, end)
    return text


def _cut_and_strip(text: str, end: str) -> str:
    return text[: text.index(end)].strip() if end in text else text


def _extract_robust(raw: str, problem: Problem) -> str:
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [block for language, block in _fenced_blocks(text) if language not in _OTHER_LANGUAGES]
    defining = [block for block in blocks if _defines(block, problem.entry_point)]
    for block in defining:
        if _parses(block):
            return _with_imports(block, blocks, defining)
    if defining:
        return _longest_program(defining[0])
    start = _CODE_START.search(text)
    if start is not None and _defines(text, problem.entry_point):
        return _longest_program(_dedented(text[start.start() :]))
    # A bare body, in a block or without: the prompt is continued by it, if need be with its indentation repaired.
    for block in [*blocks, text]:
        for body in (block, textwrap.indent(textwrap.dedent(block), "    ")):
            if _is_body(body) and _parses(problem.prompt + body):
                return body
    return blocks[0] if blocks else _cut_at_first(text, stop_strings("completion", problem.kind))


def _fenced_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yields (language, code) of each fenced block; one left open, as in an answer that was cut, ends with the text."""
    fence = language = ""
    lines: list[str] = []
    for line in text.split("\n"):
        if not fence:
            opening = _OPENING.search(line)
            if opening:
                fence, words, lines = opening.group(1), opening.group(2).split(), []
                language = words[0].lower() if words else ""
        elif line.strip().startswith(fence) or line.rstrip().endswith(fence):
            lines.append(line[: line.index(fence)])
            yield language, _dedented("\n".join(lines).rstrip() + "\n")
            fence = ""
        else:
            lines.append(line)
    if fence:
        yield language, _dedented("\n".join(lines).rstrip() + "\n")


def _dedented(block: str) -> str:
    """Returns the block without the indentation that all its lines share, if it holds more than a function's body."""
    return textwrap.dedent(block) if _CODE_START.search(block) else block


def _with_imports(block: str, blocks: list[str], defining: list[str]) -> str:
    """Returns the block, behind those that only import or define what it uses, where they stand apart."""
    before = [
        other
        for other in blocks[: blocks.index(block)]
        if other not in defining and _parses(other) and _only_defines(other)
    ]
    return "".join([*before, block])


def _only_defines(block: str) -> bool:
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return all(isinstance(node, kinds) for node in syntax.parse(block).body)


def _defines(source: str, name: str) -> bool:
    return re.search(rf"^[ \t]*(?:async )?def {re.escape(name)}\b", source, re.MULTILINE) is not None


def _is_body(source: str) -> bool:
    """Returns whether a text is indented code that returns or yields, not a line of prose that happens to parse."""
    return source[:1].isspace() and re.search(r"^\s+(?:return|yield)\b", source, re.MULTILINE) is not None


def _parses(source: str) -> bool:
    try:
        syntax.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _longest_program(text: str) -> str:
    """Returns the longest run of whole lines from the start of `text` that is a Python program.

    Every cut is made at the line that the parser complains about, or one line earlier, so few attempts are needed.
    """
    lines = text.split("\n")
    while lines:
        try:
            syntax.parse("\n".join(lines))
        except SyntaxError as error:
            keep = (error.lineno or len(lines)) - 1
            lines = lines[: min(keep, len(lines) - 1)]
        except (ValueError, RecursionError, MemoryError):
            return text
        else:
            return "\n".join(lines) + "\n"
    return text


def _cut_at_first(text: str, stops: tuple[str, ...]) -> str:
    ends = [position for stop in stops if (position := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
