"""Seeds, and the pool in which each of them is a slot that holds the newest accepted task of its line."""

import dataclasses
import re
from pathlib import Path

from jaxwiz.files import UserError
from jaxwiz.records import EvolvedTask, Seed, read_records


class SeedError(UserError):
    """A seed that cannot be evolved; the message names file, seed and remedy."""


@dataclasses.dataclass
class Slot:
    """One line of descent in the pool.

    Attributes:
      task: the newest accepted task; it is the parent of the next evolution.
      attempt: how often this parent has failed to evolve.
    """

    task: EvolvedTask
    attempt: int = 0

    def advance(self, child: EvolvedTask) -> None:
        """Lets an accepted child take its parent's place; a rejected one sends the parent back to the pool."""
        if child.rejected:
            self.attempt += 1
        else:
            self.task, self.attempt = child, 0


def read_seeds(path: Path) -> list[EvolvedTask]:
    """Returns the seeds of a JSONL file as tasks of round 0, in order; those without an id are named by line.

    Raises:
      RecordError: a line is no seed.
      SeedError: no seed at all, an empty instruction, an id given twice, or text that is not valid Unicode.
    """
    tasks = [_task_of(seed, number, path) for number, seed in enumerate(read_records(path, Seed), start=1)]
    if not tasks:
        raise SeedError(f"{path}: holds no seed; give at least one line with an 'instruction'")
    ids = {task.id for task in tasks}
    if len(ids) < len(tasks):
        names = [task.id for task in tasks]
        twice = next(name for name in names if names.count(name) > 1)
        raise SeedError(f"{path}: id {twice!r} is given to two seeds; ids must differ")
    for name in sorted(ids):
        if re.sub(r"/r\d+$", "", name) in ids - {name}:
            raise SeedError(f"{path}: id {name!r} would clash with an evolution of another seed; rename it")
    return tasks


def prompt_text(task: EvolvedTask) -> str:
    """Returns what a model is shown of a task: its instruction, then its input, if any, after an empty line."""
    return f"{task.instruction}\n\n{task.input}" if task.input else task.instruction


def _task_of(seed: Seed, number: int, path: Path) -> EvolvedTask:
    name = seed.id or f"seed-{number:05d}"
    if not seed.instruction.strip():
        raise SeedError(f"{path}: seed {name!r} has an empty instruction; remove it")
    try:
        f"{name}{seed.instruction}{seed.input}{seed.output}".encode()
    except UnicodeEncodeError:
        raise SeedError(f"{path}: seed {name!r} holds half a surrogate pair, which is no text; correct it") from None
    return EvolvedTask(
        id=name,
        instruction=seed.instruction,
        input=seed.input,
        output=seed.output,
        root=name,
        parent="",
        operation="seed",
        round=0,
        attempt=0,
    )
