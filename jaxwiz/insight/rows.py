"""Reads what an evolve run left: its counts, measures of all kept rows, a sample of their texts, and whole lineages.

Rows are read one by one, twice, so that memory holds numbers of all rows and texts of few. Which lineages are whole on
the page is drawn by hashing their seeds' names, so that they are a fair sample and the same ones every time.
"""

import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from jaxwiz.evolve.pool import prompt_text
from jaxwiz.evolve.statistics import SCHEMA
from jaxwiz.files import UserError
from jaxwiz.records import EvolvedTask, read_records

MOST_SAMPLED_SEEDS = 1500  # whose lineages' texts topics are found in
FILES = ("evolved.jsonl", "rejected.jsonl")


class InsightError(UserError):
    """A folder that holds no finished evolve run, or a seed that the run doesn't have."""


@dataclasses.dataclass
class Measures:
    """Sizes of the rows of one round that were kept, in words, and their scores, where they have one."""

    instruction_words: list[int] = dataclasses.field(default_factory=list)
    answer_words: list[int] = dataclasses.field(default_factory=list)
    difficulties: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      folder: where it lies.
      statistics: its statistics.json.
      measures: by round, 0 for seeds.
      texts: (round, instruction) of a sample of kept rows: the same seeds' in all rounds.
      lineages: by seed, its rows and those evolved from it, kept or not, in the order of rounds.
      seeds: how many lineages there are in all.
    """

    folder: Path
    statistics: dict[str, Any]
    measures: dict[int, Measures]
    texts: list[tuple[int, str]]
    lineages: dict[str, list[EvolvedTask]]
    seeds: int


def read_run(folder: Path, wanted: Collection[str] = (), most_bytes: int = 8 << 20) -> Run:
    """Returns a finished run.

    Args:
      folder: the `out` of an evolve run.
      wanted: ids of seeds whose lineages are returned in any case.
      most_bytes: most bytes of the other lineages' rows.

    Raises:
      InsightError: no finished run, or no such seed.
    """
    statistics = _read_statistics(folder)
    kept_seeds = statistics["seeds"]["kept"]
    share = min(1.0, MOST_SAMPLED_SEEDS / kept_seeds) if kept_seeds else 1.0
    measures: dict[int, Measures] = defaultdict(Measures)
    texts: list[tuple[int, str]] = []
    sizes: Counter[str] = Counter()
    for task, is_kept in _rows(folder):
        sizes[task.root] += len(task.instruction) + len(task.input) + len(task.output)
        if is_kept:
            _measure(measures[task.round], task)
            if _place(task.root) < share:
                texts.append((task.round, prompt_text(task)))
    unknown = [name for name in wanted if name not in sizes]
    if unknown:
        raise InsightError(f"--seed {unknown[0]}: {folder} has no seed of that id; its rows have the ids as `root`")
    chosen = _choose(sizes, wanted, most_bytes)
    lineages: dict[str, list[EvolvedTask]] = {root: [] for root in chosen}
    for task, _ in _rows(folder):
        if task.root in lineages:
            lineages[task.root].append(task)
    for rows in lineages.values():
        rows.sort(key=lambda task: task.round)
    return Run(folder, statistics, dict(sorted(measures.items())), texts, lineages, len(sizes))


def _read_statistics(folder: Path) -> dict[str, Any]:
    missing = [name for name in ("statistics.json", *FILES) if not (folder / name).is_file()]
    if missing:
        raise InsightError(
            f"{folder / missing[0]}: no such file; give the `out` folder of an evolve run that has come to its end"
        )
    try:
        statistics = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
        schema = statistics["schema"]
    except (ValueError, KeyError, TypeError):
        raise InsightError(f"{folder / 'statistics.json'}: damaged; run `jaxwiz evolve` again to write it") from None
    if schema != SCHEMA:
        raise InsightError(f"{folder / 'statistics.json'}: schema {schema!r}, expected {SCHEMA!r}")
    return statistics


def _rows(folder: Path) -> Iterator[tuple[EvolvedTask, bool]]:
    for name in FILES:
        for task in read_records(folder / name, EvolvedTask):
            yield task, not task.rejected


def _measure(measures: Measures, task: EvolvedTask) -> None:
    measures.instruction_words.append(len(prompt_text(task).split()))
    measures.answer_words.append(len(task.output.split()))
    if task.difficulty:
        measures.difficulties.append(task.difficulty)


def _choose(sizes: Counter[str], wanted: Collection[str], most_bytes: int) -> list[str]:
    """Returns the wanted seeds, then as many others as there is room for, in the order of their ids."""
    chosen, left = list(dict.fromkeys(wanted)), most_bytes
    others = []
    for root in sorted(sizes.keys() - set(chosen), key=_place):
        left -= sizes[root]
        if left < 0:
            break
        others.append(root)
    return chosen + sorted(others)


def _place(root: str) -> float:
    """Returns where in [0, 1) a seed's hash lies."""
    digest = hashlib.sha256(root.encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
