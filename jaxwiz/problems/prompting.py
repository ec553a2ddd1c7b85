"""What a model is asked about a benchmark task, in the style that it was trained for.

    style        text                                                for
    wizardcoder  an instruction, as WizardCoder's scripts word it    models tuned with the WizardCoder template
    chat         an instruction with the task in a code fence        models with a chat template
    completion   the prompt itself                                   base models, with stop strings

The template around an instruction (header, roles, control tokens) belongs to `jaxwiz.text.templates`.
"""

from typing import Literal, get_args

from jaxwiz.problems.problem import Kind, Problem

PromptStyle = Literal["wizardcoder", "chat", "completion"]
PROMPT_STYLES: tuple[PromptStyle, ...] = get_args(PromptStyle)

# What can only follow the function that a base model was asked to complete.
TOP_LEVEL_STARTS = ("def ", "class ", "if ", "print(", "#", "@", "assert ", "import ", "from ", "```", "<|")
FUNCTION_STOPS = tuple(f"\n{start}" for start in TOP_LEVEL_STARTS)
# A whole program may define and import as it likes; these begin what only uses it, or the next task.
PROGRAM_STOPS = tuple(f"\n{start}" for start in ('"""', "assert", "print(", "if __name__", "def main(", "```", "<|"))

# Its assertions, polygons of hundreds of numbers, are replaced by the function's signature in WizardCoder's script.
_LONG_EXAMPLES = {"Mbpp/493": ("calculate_polygons(startx, starty, endx, endy, radius)",)}


def instruction(problem: Problem, style: PromptStyle) -> str:
    """Returns the text that asks for an answer to `problem`.

    Args:
      problem: the task.
      style: one of PROMPT_STYLES. "wizardcoder" turns each four spaces of the prompt into a tab, as WizardCoder's
        released scripts do; `extract` turns tabs back.
    """
    if style == "wizardcoder":
        return _wizardcoder(problem).replace("    ", "\t")
    if style == "chat":
        return _chat(problem)
    return problem.prompt


def stop_strings(style: PromptStyle, kind: Kind) -> tuple[str, ...]:
    """Returns strings at which generation may end because what follows is never part of the answer."""
    if style != "completion":
        return ()
    return PROGRAM_STOPS if kind in ("mbpp", "mbpp_plus") else FUNCTION_STOPS


def _wizardcoder(problem: Problem) -> str:
    header = "Create a Python script for this problem:\n"
    if problem.kind == "mbpp":
        examples = _LONG_EXAMPLES.get(problem.task_id, problem.examples)
        return header + "\n".join(["", problem.description, "Test examples:", *examples])
    if problem.kind == "mbpp_plus":
        return _with_assertions(problem)
    return header + problem.prompt


def _chat(problem: Problem) -> str:
    if problem.kind in ("mbpp", "mbpp_plus"):
        return f"{_with_assertions(problem)}\nAnswer with the whole program, imports included, in one code block."
    return (
        "Complete this Python function. Answer with the whole function, imports included, in one code block.\n\n"
        f"```python\n{problem.prompt.rstrip()}\n```"
    )


def _with_assertions(problem: Problem) -> str:
    noun = "assertion" if len(problem.examples) == 1 else "assertions"
    examples = "\n".join(problem.examples)
    return f"{problem.description} Your code should satisfy the following {noun}:\n```python\n{examples}\n```"
