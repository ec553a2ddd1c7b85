"""Cleaning: which rows of training data must go, told in their order, for any number of rows.

    for text, exclusion in zip(texts, find_exclusions(texts, config, work)): ...

Rows are read once, in blocks; what can be told of a block on its own (signatures, benchmark tasks in it) is told here
or on the nodes of a cluster, with the same result. Then all rows' signatures are compared in their order. A row that
holds a benchmark's task is out, whatever it repeats; of rows that repeat each other the first that is left stays.

Everything on the way lies in a folder: a killed run that is started again makes only the blocks that are missing.
"""

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz import __version__, files
from jaxwiz.clean.blocks import ROWS_PER_BLOCK, Block, clean_blocks, digest_of, load_block
from jaxwiz.clean.config import TIERS, CleanConfig
from jaxwiz.clean.decontaminate import Hit
from jaxwiz.clean.near import NONE, Near, find_near
from jaxwiz.clean.tasks import Task, Used, load_tasks
from jaxwiz.clean.texts import Exclusion, Text
from jaxwiz.config import Finding
from jaxwiz.console import progress, warn
from jaxwiz.fanout import LocalEngine, RayEngine, fan_out
from jaxwiz.problems.benchmarks import RELEASES
from jaxwiz.sandbox import Level, sandbox_level

SUMMARY = "summary.json"
CONTAMINATED = "contaminated.jsonl"
SCHEMA = "jaxwiz.cleaning.v1"
MOST_LISTED = 200  # near duplicates, and passes, that the report names


def find_exclusions(
    texts: Iterable[Text],
    config: CleanConfig,
    work: Path,
    engine: LocalEngine | RayEngine = LocalEngine(),  # noqa: B008 - frozen
) -> Iterator[Exclusion | None]:
    """Yields for each text, in order, why it must go, or None; once exhausted, `report.write_report` can tell of it.

    Args:
      texts: all rows, drawn once and to their end before the first answer.
      config: what to look for.
      work: folder for what is made on the way; a later call with the same rows and config goes on from it.
      engine: where blocks of rows are looked at; the answers are the same.

    Raises:
      UserError: a benchmark can't be had, or answers can't be run here in a sandbox.
    """
    return _Cleaning(config, work, engine).answers(texts)


def check_clean(config: CleanConfig) -> list[Finding]:
    """Returns what cleaning would meet: the benchmarks that it uses and leaves out, and the sandbox."""
    try:
        used, _ = load_tasks(config.benchmarks)
        level = _sandbox(config)
    except files.UserError as error:
        return [Finding("error", str(error))]
    findings = [
        Finding("ok", f"cleaning: {one.name} ({one.file}, version {one.version}), {one.tasks} tasks") for one in used
    ]
    if left_out := _left_out(used):
        findings.append(Finding("warning", f"cleaning: not held against {', '.join(left_out)}; see clean.benchmarks"))
    if level:
        findings.append(Finding("ok", f"cleaning: answers run at sandbox level {level.name}"))
    return findings


class _Cleaning:
    def __init__(self, config: CleanConfig, work: Path, engine: LocalEngine | RayEngine) -> None:
        self._config, self._work, self._engine = config, work, engine
        self._used, self._tasks = load_tasks(config.benchmarks)
        self._level = _sandbox(config)
        self._open_work()

    def answers(self, texts: Iterable[Text]) -> Iterator[Exclusion | None]:
        rows = self._make_blocks(texts)
        blocks = -(-rows // ROWS_PER_BLOCK)
        contaminated = np.zeros(rows, np.bool_)
        identities = np.empty((rows, 2), np.uint64)
        for number in range(blocks):
            block = self._load(number)
            first = number * ROWS_PER_BLOCK
            identities[first : first + len(block.keys)] = block.identities
            contaminated[[first + place for place in block.hits]] = True
        exact = _first_of_each(identities, contaminated) if self._config.exact else np.full(rows, NONE, np.int32)
        del identities
        if self._config.near:
            left_out = contaminated | (exact != NONE)
            near = find_near(self._work / "signatures.u32", rows, left_out, self._config.near, self._work)
        else:
            near = Near(np.full(rows, NONE, np.int32), np.zeros(rows, np.float32))
        yield from self._answers(blocks, exact, near)

    def _open_work(self) -> None:
        """Removes blocks of another purpose."""
        purpose = json.dumps(
            [
                SCHEMA,
                __version__,
                repr(dataclasses.replace(self._config, workers=None, benchmarks=())),
                [repr(dataclasses.replace(one, path=None)) for one in self._config.benchmarks],
                [one.sha256 for one in self._used],
            ]
        )
        (self._work / SUMMARY).unlink(missing_ok=True)
        path = self._work / "purpose.json"
        if not path.exists() or path.read_text(encoding="utf-8") != purpose:
            for old in self._work.glob("block-*.json"):
                old.unlink()
            files.write_text(path, purpose)

    def _path(self, number: int) -> Path:
        return self._work / f"block-{number:06d}.json"

    @functools.lru_cache(maxsize=64)  # noqa: B019 - lives as long as the run
    def _load(self, number: int) -> Block:
        return load_block(self._path(number))

    def _make_blocks(self, texts: Iterable[Text]) -> int:
        """Makes the blocks that are missing; returns how many rows there are."""
        rows = 0

        def missing() -> Iterator[tuple[int, Sequence[Text]]]:
            nonlocal rows
            remaining = iter(texts)
            for number in itertools.count():
                block = list(itertools.islice(remaining, ROWS_PER_BLOCK))
                rows += len(block)
                path = self._path(number)
                if block and not (path.exists() and load_block(path).digest == digest_of(block)):
                    yield number, block
                if len(block) < ROWS_PER_BLOCK:
                    return

        signatures = self._work / "signatures.u32"
        signatures.touch()
        work = functools.partial(clean_blocks, self._config, self._tasks)
        with open(signatures, "r+b") as file, progress("clean", None, "rows") as advance:
            for number, block in fan_out(self._engine, work, missing(), ahead=1):
                file.seek(number * ROWS_PER_BLOCK * block.signatures.shape[1] * 4)
                file.write(block.signatures.tobytes())
                file.flush()
                block.save(self._path(number))
                advance(len(block.keys))
        return rows

    def _answers(self, blocks: int, exact: np.ndarray, near: Near) -> Iterator[Exclusion | None]:
        """Yields the answers, and writes what the report needs beside."""
        counts = _Counts()
        with files.atomic_file(self._work / CONTAMINATED) as partial, open(partial, "w", encoding="utf-8") as file:
            for number in range(blocks):
                block = self._load(number)
                counts.add_block(block)
                for place, key in enumerate(block.keys):
                    answer: Exclusion | None
                    row = number * ROWS_PER_BLOCK + place
                    if place in block.hits:
                        hit, text = block.hits[place]
                        label = self._by_id[hit.task_id].label
                        answer = Exclusion(key, "contaminated", hit.tier, label, hit.detail)
                        file.write(json.dumps([dataclasses.asdict(hit), dataclasses.asdict(text)]) + "\n")
                        counts.add_hit(hit)
                    elif exact[row] != NONE:
                        answer = Exclusion(key, "duplicate", "exact", self._key(exact[row]), "the same texts")
                        counts.reasons["duplicate"] += 1
                    elif near.match[row] != NONE:
                        answer = self._near_duplicate(key, near, row)
                        counts.add_near(answer, float(near.similarity[row]))
                    else:
                        answer = None
                    yield answer
        self._write_summary(counts)

    def _near_duplicate(self, key: str, near: Near, row: int) -> Exclusion:
        detail = f"estimated similarity {near.similarity[row]:.2f}"
        return Exclusion(key, "near_duplicate", "near", self._key(near.match[row]), detail)

    def _key(self, row: int) -> str:
        number, place = divmod(int(row), ROWS_PER_BLOCK)
        return self._load(number).keys[place]

    @functools.cached_property
    def _by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self._tasks}

    def _write_summary(self, counts: "_Counts") -> None:
        config = self._config
        mentioned = sorted({*counts.tasks, *(one["task_id"] for one in counts.passes)})
        summary: dict[str, Any] = {
            "schema": SCHEMA,
            "jaxwiz": __version__,
            "rows": counts.rows,
            "kept": counts.rows - counts.reasons.total(),
            "reasons": {name: counts.reasons[name] for name in ("duplicate", "near_duplicate", "contaminated")},
            "duplicates": {
                "exact": config.exact,
                "near": dataclasses.asdict(config.near) if config.near else None,
                "near_examples": counts.near,
            },
            "benchmarks": [dataclasses.asdict(one) for one in self._used],
            "benchmarks_left_out": _left_out(self._used),
            "tiers": {tier: counts.tiers[tier] if tier in config.tiers else None for tier in TIERS},
            "tests": None
            if self._level is None
            else {
                "sandbox": self._level.name,
                "rows_with_functions": counts.executed_rows,
                "functions": counts.functions,
                "unfinished": counts.unfinished,
                "passes_not_counted": dict(sorted(counts.pass_reasons.items())),
                "examples_not_counted": counts.passes,
            },
            "tasks": {
                task_id: {
                    "benchmarks": list(self._by_id[task_id].benchmarks),
                    "tiers": {tier: count for tier in TIERS if (count := counts.tasks[task_id][tier])},
                }
                for task_id in sorted(counts.tasks, key=_natural)
            },
            "texts": {
                task_id: {
                    "question": self._by_id[task_id].questions[0],
                    "solution": self._by_id[task_id].solution_texts[-1],
                }
                for task_id in mentioned
            },
        }
        files.write_text(self._work / SUMMARY, json.dumps(summary, indent=1) + "\n")


class _Counts:
    """What the report tells, counted while answers go by."""

    def __init__(self) -> None:
        self.rows = self.executed_rows = self.functions = self.unfinished = 0
        self.reasons: Counter[str] = Counter()
        self.tiers: Counter[str] = Counter()
        self.tasks: dict[str, Counter[str]] = {}
        self.near: list[dict[str, Any]] = []
        self.pass_reasons: Counter[str] = Counter()
        self.passes: list[dict[str, str]] = []

    def add_block(self, block: Block) -> None:
        self.rows += len(block.keys)
        self.executed_rows += block.executed_rows
        self.functions += block.functions
        self.unfinished += block.unfinished
        self.pass_reasons.update(one.why for one in block.passes)
        self.passes += [dataclasses.asdict(one) for one in block.passes[: MOST_LISTED - len(self.passes)]]

    def add_hit(self, hit: Hit) -> None:
        self.reasons["contaminated"] += 1
        self.tiers[hit.tier] += 1
        self.tasks.setdefault(hit.task_id, Counter())[hit.tier] += 1

    def add_near(self, answer: Exclusion, similarity: float) -> None:
        self.reasons["near_duplicate"] += 1
        if len(self.near) < MOST_LISTED:
            self.near.append({"key": answer.key, "like": answer.match, "similarity": round(similarity, 4)})


def _first_of_each(identities: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Returns for each row the first row that has the same identity, NONE for that one itself; int32 [rows]."""
    first_rows = np.full(len(identities), NONE, np.int32)
    members = np.flatnonzero(~left_out)
    if not len(members):
        return first_rows
    order = members[np.lexsort((identities[members, 1], identities[members, 0]))]
    new = np.ones(len(order), np.bool_)
    new[1:] = (identities[order[1:]] != identities[order[:-1]]).any(axis=1)
    first_of_group = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    repeated = first_of_group != order
    first_rows[order[repeated]] = first_of_group[repeated]
    return first_rows


def _sandbox(config: CleanConfig) -> Level | None:
    """Returns how answers will be confined; None if none is run."""
    if not config.benchmarks or "tests" not in config.tiers:
        return None
    level = sandbox_level(config.unsafe_no_sandbox)
    if level.warning:
        warn(level.warning)
    return level


def _left_out(used: Sequence[Used]) -> list[str]:
    return [kind for kind in RELEASES if kind not in {one.name for one in used}]


def _natural(task_id: str) -> tuple[str, int]:
    family, _, number = task_id.partition("/")
    return family, int(number) if number.isdigit() else 0
