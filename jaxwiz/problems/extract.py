"""Takes code out of what a model answered.

    mode         does
    wizardcoder  what WizardCoder's released scripts do, bugs included: comparable with published scores
    robust       any fence or none, prose around the code, several blocks: the one that defines the function
    completion   nothing but cutting a base model's text where the function has ended

The result is put behind the task's prompt and may define the function again.
"""

import ast
import re
from typing import Literal, get_args

from jaxwiz.problems.humaneval import Problem
from jaxwiz.problems.prompting import COMPLETION_STOP_STRINGS

ExtractMode = Literal["wizardcoder", "robust", "completion"]
EXTRACT_MODES: tuple[ExtractMode, ...] = get_args(ExtractMode)

# A fence may be indented, use ~ or `, name its language, and lack its end where the answer was cut.
_FENCED_BLOCK = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_OTHER_LANGUAGES = {
    "bash",
    "sh",
    "shell",
    "console",
    "text",
    "txt",
    "output",
    "json",
    "javascript",
    "js",
    "cpp",
    "java",
}
_CODE_START = re.compile(r"^(?:(?:async )?def |class |@|import \w|from [\w.]+ import )", re.MULTILINE)


def extract(raw: str, problem: Problem, mode: ExtractMode) -> str:
    """Returns the code in `raw`.

    Args:
      raw: the model's text, untouched.
      problem: the task that it answers.
      mode: one of EXTRACT_MODES.
    """
    if mode == "wizardcoder":
        return _extract_wizardcoder(raw)
    if mode == "robust":
        return _extract_robust(raw, problem)
    return _cut_at_first(raw, COMPLETION_STOP_STRINGS)


def _extract_wizardcoder(raw: str) -> str:
    """Follows the released post-processing step by step; only what it cuts does it strip."""
    text = raw.replace("\t", "    ").replace("\r", "")
    ends = ['if __name__ == "__main__":', "# Example usage"]
    if "```python" in text:
        text = text[text.index("```python") :].strip().replace("```python", "")
        ends.insert(0, "```")
    for end in ends:
        if end in text:
            text = text[: text.index(end)].strip()
    return text


def _extract_robust(raw: str, problem: Problem) -> str:
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    blocks = [
        block.rstrip() + "\n"
        for _, language, block in _FENCED_BLOCK.findall(text)
        if language.lower() not in _OTHER_LANGUAGES
    ]
    defining = [block for block in blocks if _defines(block, problem.entry_point)]
    for block in defining:
        if _parses(block):
            return block
    if defining:
        return _longest_program(defining[0])
    # Helpers in one block and a bare body in another: the prompt may be continued by any of them.
    for block in [*blocks, text]:
        if block[:1].isspace() and _parses(problem.prompt + block):
            return block
    start = _CODE_START.search(text)
    if start is not None and _defines(text, problem.entry_point):
        return _longest_program(text[start.start() :])
    return blocks[0] if blocks else _cut_at_first(text, COMPLETION_STOP_STRINGS)


def _defines(source: str, name: str) -> bool:
    return re.search(rf"^[ \t]*(?:async )?def {re.escape(name)}\b", source, re.MULTILINE) is not None


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
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
            ast.parse("\n".join(lines))
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
