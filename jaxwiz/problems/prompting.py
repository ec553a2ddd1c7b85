"""What a model is asked about a benchmark task, in the style that it was trained for.

    style        text                                             for
    wizardcoder  an instruction, the prompt with tabs             models tuned with the WizardCoder template
    chat         an instruction with the prompt in a code fence   models with a chat template
    completion   the prompt itself                                base models, with stop strings

The template around an instruction (header, roles, control tokens) belongs to `jaxwiz.text.templates`.
"""

from typing import Literal, get_args

from jaxwiz.problems.humaneval import Problem

PromptStyle = Literal["wizardcoder", "chat", "completion"]
PROMPT_STYLES: tuple[PromptStyle, ...] = get_args(PromptStyle)

# What can only follow the function that a base model was asked to complete.
TOP_LEVEL_STARTS = ("def ", "class ", "if ", "print(", "#", "@", "assert ", "import ", "from ", "```", "<|")
COMPLETION_STOP_STRINGS = tuple(f"\n{start}" for start in TOP_LEVEL_STARTS)


def instruction(problem: Problem, style: PromptStyle) -> str:
    """Returns the text that asks for an answer to `problem`.

    Args:
      problem: the task.
      style: one of PROMPT_STYLES. "wizardcoder" turns each four spaces of the prompt into a tab, as WizardCoder's
        released scripts do; `extract` turns tabs back.
    """
    if style == "wizardcoder":
        return "Create a Python script for this problem:\n" + problem.prompt.replace("    ", "\t")
    if style == "chat":
        return (
            "Complete this Python function. Answer with the whole function, imports included, in one code block.\n\n"
            f"```python\n{problem.prompt.rstrip()}\n```"
        )
    return problem.prompt


def stop_strings(style: PromptStyle) -> tuple[str, ...]:
    """Returns strings at which generation may end because what follows is never part of the answer."""
    return COMPLETION_STOP_STRINGS if style == "completion" else ()
