"""What is to be answered: the tasks of a benchmark, or the lines of a file of prompts or conversations."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxwiz.files import UserError
from jaxwiz.problems.benchmarks import load_benchmark
from jaxwiz.problems.problem import Problem
from jaxwiz.problems.prompting import instruction, stop_strings
from jaxwiz.sample.config import PromptsConfig, SampleConfig
from jaxwiz.sample.prompts import Prompter
from jaxwiz.text.messages import Message

_ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True)
class Question:
    """One answer to generate.

    Attributes:
      task_id: the task's name.
      sample: which of its answers.
      prompt: the ids that the model goes on from.
      text: the same as text.
      problem: the benchmark's problem; None for a line of a file.
    """

    task_id: str
    sample: int
    prompt: list[int]
    text: str
    problem: Problem | None


def read_questions(config: SampleConfig, prompter: Prompter) -> list[Question]:
    """Returns what is to be answered, in the order of completions.jsonl: by task, then by sample.

    Raises:
      UserError: no such tasks, or lines that are no prompts; all are named.
    """
    problems: list[Problem | None]
    if isinstance(config.benchmark, PromptsConfig):
        names, conversations = _read_prompts(config.benchmark.path)
        problems = [None] * len(names)
    else:
        loaded = load_benchmark(config.benchmark).problems
        names, problems = list(loaded), list(loaded.values())
        conversations = [[Message("user", instruction(problem, config.prompt_style))] for problem in loaded.values()]
    prompts = prompter.encode(conversations)
    return [
        Question(name, sample, prompt, prompter.conversation_text(messages), problem)
        for name, messages, prompt, problem in zip(names, conversations, prompts, problems, strict=True)
        for sample in range(config.samples_per_task)
    ]


def stops_of(config: SampleConfig, prompter: Prompter) -> tuple[str, ...]:
    """Returns the texts at which an answer ends: of the template, the prompt style and the config."""
    kind = config.benchmark.kind
    styles = () if kind == "prompts" else stop_strings(config.prompt_style, kind)
    return (*prompter.end_texts, *styles, *config.sampling.stop)


def _read_prompts(path: Path) -> tuple[list[str], list[list[Message]]]:
    conversations: dict[str, list[Message]] = {}
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = str(row.get("id", f"line-{number:05d}"))
            if name in conversations:
                raise ValueError(f"id {name!r} was there before; give each line its own")
            conversations[name] = _messages(row)
        except (ValueError, AttributeError) as error:
            faults.append(f"{path}:{number}: {error or 'must be a JSON object'}")
    if not conversations and not faults:
        faults.append(f'{path}: holds no prompts; write lines such as {{"prompt": "..."}}')
    if faults:
        raise UserError("\n".join(faults))
    return list(conversations), list(conversations.values())


def _messages(row: dict[str, Any]) -> list[Message]:
    if ("prompt" in row) == ("messages" in row):
        raise ValueError('must have either "prompt" or "messages"')
    if "prompt" in row:
        if not isinstance(row["prompt"], str) or not row["prompt"]:
            raise ValueError(f'"prompt" is {row["prompt"]!r}; must be a text that is not empty')
        return [Message("user", row["prompt"])]
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError('"messages" must be a list of at least one {"role": ..., "content": ...}')
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f'"messages": {message!r} must have a "role", one of {", ".join(_ROLES)}')
        if not isinstance(message.get("content"), str):
            raise ValueError(f'"messages": {message!r} must have a text as "content"')
    return [Message(message["role"], message["content"]) for message in messages]
