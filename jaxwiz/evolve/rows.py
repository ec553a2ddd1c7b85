"""Where decided rows go: lists in a notebook, files in the stage, so that memory holds the pool and not every round."""

import contextlib
import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jaxwiz import files
from jaxwiz.evolve import draw
from jaxwiz.records import EvolvedTask


@dataclasses.dataclass
class Evolution:
    """What a run made, in memory.

    Attributes:
      seeds: kept seeds in their order.
      evolved: kept evolutions by round, in the pool's order.
      rejected: rejected seeds and evolutions with their reasons, in the order of rejection.
      statistics: counts, as in statistics.json.
    """

    seeds: list[EvolvedTask] = dataclasses.field(default_factory=list)
    evolved: list[EvolvedTask] = dataclasses.field(default_factory=list)
    rejected: list[EvolvedTask] = dataclasses.field(default_factory=list)
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, task: EvolvedTask) -> None:
        """Takes a decided task."""
        (self.rejected if task.rejected else self.evolved if task.round else self.seeds).append(task)

    def training_set(self, seed: int) -> list[EvolvedTask]:
        """Returns seeds and evolutions of all rounds, shuffled by `seed`."""
        by_id = {task.id: task for task in (*self.seeds, *self.evolved)}
        return [by_id[name] for name in draw.shuffled(by_id, seed)]


class RowFiles:
    """Makes evolved.jsonl and rejected.jsonl; a context manager at whose end, without an error, both are in place.

    Kept rows lie in an unnamed file until all are there, and are then copied in the order of the shuffle.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._places: dict[str, int] = {}  # id of a kept row -> where its line begins
        self._open = ExitStack()

    def add(self, task: EvolvedTask) -> None:
        """Takes a decided task."""
        line = (task.to_json() + "\n").encode("utf-8", "backslashreplace")  # as `records.write_records`
        if task.rejected:
            self._rejected.write(line)
        else:
            self._places[task.id] = self._kept.tell()
            self._kept.write(line)

    def __enter__(self) -> "RowFiles":
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._open.enter_context(files.atomic_file(self._folder / "rejected.jsonl"))
        self._rejected: IO[bytes] = self._open.enter_context(open(partial, "wb"))
        self._kept: IO[bytes] = self._open.enter_context(tempfile.TemporaryFile(dir=self._folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # a full disk: the first error says it
                self._open.__exit__(kind, error, trace)
            return
        with self._open:
            self._write_shuffled()

    def _write_shuffled(self) -> None:
        with files.atomic_file(self._folder / "evolved.jsonl") as partial, open(partial, "wb") as file:
            for name in draw.shuffled(self._places, self._seed):
                self._kept.seek(self._places[name])
                file.write(self._kept.readline())
