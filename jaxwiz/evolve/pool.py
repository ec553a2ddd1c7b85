"""Seeds, and the pool in which each of them is a slot that holds the newest accepted task of its line."""

import dataclasses
import re
from collections.abc import Iterable
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
    return tasks_of(read_records(path, Seed), str(path))


def tasks_of(seeds: Iterable[Seed], source: str) -> list[EvolvedTask]:
    """Returns seeds as tasks of round 0; `source` names them in messages. Raises SeedError as `read_seeds`."""
    tasks = [_task_of(seed, number, source) for number, seed in enumerate(seeds, start=1)]
    if not tasks:
        raise SeedError(f"{source}: holds no seed; give at least one with an 'instruction'")
    ids: set[str] = set()
    for task in tasks:
        if task.id in ids:
            raise SeedError(f"{source}: id {task.id!r} is given to two seeds; ids must differ")
        ids.add(task.id)
    for name in sorted(ids):
        evolution = re.fullmatch(r"(.*)/r\d+", name, re.DOTALL)
        if evolution and evolution[1] in ids:
            raise SeedError(f"{source}: id {name!r} would clash with an evolution of another seed; rename it")
    return tasks


def prompt_text(task: EvolvedTask) -> str:
    """Returns what a model is shown of a task: its instruction, then its input, if any, after an empty line."""
    return f"{task.instruction}\n\n{task.input}" if task.input else task.instruction


def _task_of(seed: Seed, number: int, source: str) -> EvolvedTask:
    name = seed.id or f"seed-{number:05d}"
    if not seed.instruction.strip():
        raise SeedError(f"{source}: seed {name!r} has an empty instruction; remove it")
    try:
        f"{name}{seed.instruction}{seed.input}{seed.output}".encode()
    except UnicodeEncodeError:
        raise SeedError(f"{source}: seed {name!r} holds half a surrogate pair, which is no text; correct it") from None
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
