"""What can be told of a block of rows on its own, wherever it is made: signatures, and the benchmark tasks in them.

A block that is there need not be made again. It carries a digest of its rows, so it is never taken for another's.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxwiz import files
from jaxwiz.clean.config import CleanConfig
from jaxwiz.clean.decontaminate import Decontaminator, Hit
from jaxwiz.clean.execute import Executed, Executor, Pass
from jaxwiz.clean.minhash import Signer
from jaxwiz.clean.tasks import Task
from jaxwiz.clean.texts import Text, normalise, words_of

ROWS_PER_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Block:
    """What was found out about some rows.

    Attributes:
      digest: of the rows' keys and texts.
      keys: of the rows.
      identities: uint64 [rows, 2], equal for rows with the same normalised texts.
      signatures: uint32 [rows, permutations]; none ([rows, 0]) if near duplicates aren't looked for.
      hits: benchmark tasks by row number, with the row's text.
      passes: tests that answers passed and that weren't taken for contamination.
      executed_rows: rows that had a function to run.
      functions: functions that were run.
      unfinished: of these, those that were not tried on all tasks.
    """

    digest: str
    keys: Sequence[str]
    identities: np.ndarray
    signatures: np.ndarray
    hits: dict[int, tuple[Hit, Text]]
    passes: Sequence[Pass]
    executed_rows: int
    functions: int
    unfinished: int

    def save(self, path: Path) -> None:
        """Writes all but the signatures, whole or not at all."""
        facts = {
            "digest": self.digest,
            "keys": list(self.keys),
            "identities": self.identities.tolist(),
            "hits": [
                [number, dataclasses.asdict(hit), dataclasses.asdict(text)] for number, (hit, text) in self.hits.items()
            ],
            "passes": [dataclasses.asdict(one) for one in self.passes],
            "executed": [self.executed_rows, self.functions, self.unfinished],
        }
        files.write_text(path, json.dumps(facts))


def load_block(path: Path) -> Block:
    """Returns a saved block, without its signatures."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    identities = np.array(facts["identities"], np.uint64).reshape(-1, 2)
    return Block(
        facts["digest"],
        facts["keys"],
        identities,
        np.empty((len(identities), 0), np.uint32),
        {number: (Hit(**hit), Text(**text)) for number, hit, text in facts["hits"]},
        [Pass(**one) for one in facts["passes"]],
        *facts["executed"],
    )


def clean_blocks(
    config: CleanConfig, tasks: Sequence[Task], blocks: Iterator[tuple[int, Sequence[Text]]]
) -> Iterator[tuple[int, Block]]:
    """Yields what can be told of each block of rows on its own; for `fan_out`.

    Args:
      config: what to look for.
      tasks: those that must not be in the data.
      blocks: (number, rows) pairs.
    """
    signer = Signer(config.near) if config.near else None
    index = Decontaminator(tasks, config.tiers)
    executor = None
    if tasks and "tests" in config.tiers:
        executor = Executor(tasks, config.call_timeout_s, config.workers, config.unsafe_no_sandbox)
    for number, rows in blocks:
        normals = [(normalise(row.instruction), normalise(row.answer)) for row in rows]
        signatures = [signer.sign(words_of(" ".join(normal))) for normal in normals] if signer else []
        hits = {place: hit for place, row in enumerate(rows) if (hit := index.find(row)) is not None}
        executed = Executed()
        if executor:
            left = [place for place in range(len(rows)) if place not in hits]
            executed = executor.run([rows[place] for place in left])
            hits.update({left[place]: hit for place, hit in executed.hits.items()})
        yield (
            number,
            Block(
                digest=digest_of(rows),
                keys=[row.key for row in rows],
                identities=np.array([_identity(normal) for normal in normals], np.uint64).reshape(-1, 2),
                signatures=np.array(signatures, np.uint32).reshape(len(rows), -1),
                hits={place: (hits[place], rows[place]) for place in sorted(hits)},
                passes=executed.passes,
                executed_rows=executed.rows,
                functions=executed.functions,
                unfinished=executed.unfinished,
            ),
        )


def digest_of(rows: Sequence[Text]) -> str:
    """Returns the SHA-256 of rows with their keys."""
    digest = hashlib.sha256()
    for row in rows:
        for text in (row.key, row.instruction, row.answer):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _identity(normal: tuple[str, str]) -> tuple[int, int]:
    digest = hashlib.blake2b("\0".join(normal).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
