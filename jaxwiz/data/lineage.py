"""Which lineage a row belongs to, and which lineages are held out, decided while rows stream by.

A lineage is a seed and all that was evolved from it. Its key is a digest of the seed's instruction, or of the seed's id
where the seed itself is not among the rows; rows that were not evolved are seeds. Rows are of one lineage if they name
the same seed or begin from the same instruction, whatever file they are in.

Only a seed's own row says which instruction belongs to its id, so all rows are seen once (`add`) before any is judged
(`heldout`). Kept in memory: about 300 bytes for each seed that was evolved, and nothing for other rows.
"""

import hashlib
import json
from collections.abc import Set
from pathlib import Path

from jaxwiz import files
from jaxwiz.data.sources import Row

FEW_LINEAGES = 4096  # so few are all kept, that each side gets one


class Lineages:
    """The lineages of a run and their sides.

    A lineage's side depends on its key and the seed alone, so it keeps its side when the data grows. A small set may
    have none below the share, or none above: see `heldout_lineages`.
    """

    def __init__(self, share: float, seed: int) -> None:
        """Begins with no rows.

        Args:
          share: part of the lineages to hold out, from 0 to below 1.
          seed: varies which.
        """
        self._share = share
        self._seed = seed
        self._parents: dict[str, str] = {}
        self._few: set[str] | None = set()
        self._few_heldout: set[str] | None = None

    def add(self, row: Row) -> None:
        """Takes note of a row, before the first call of `heldout`."""
        node = _node(row)
        if row.is_root:
            # The smaller of the two leads, so an instruction leads its ids, and the order of rows changes nothing.
            first, second = sorted((self._leader(node), self._leader(_instruction_node(row))))
            if first != second:
                self._parents[second] = first
        if self._few is not None:
            self._few.add(node)
            if len(self._few) > FEW_LINEAGES:
                self._few = None

    def key(self, row: Row) -> str:
        """Returns a key that is equal throughout a row's lineage: 33 characters, the first an "i" or an "r"."""
        return self._leader(_node(row))

    def heldout(self, row: Row) -> bool:
        """Says whether a row's lineage is held out."""
        if not self._share:
            return False
        if self._few is None:
            return _position(self.key(row), self._seed) < self._share
        if self._few_heldout is None:
            keys = {self._leader(node) for node in self._few}
            self._few_heldout = heldout_lineages(keys, self._share, self._seed)
        return self.key(row) in self._few_heldout

    def save(self, path: Path) -> None:
        """Writes what `load` needs to judge rows as this object does."""
        few = None if self._few is None else sorted(self._few)
        files.write_text(path, json.dumps({"parents": self._parents, "few": few}) + "\n")

    @classmethod
    def load(cls, path: Path, share: float, seed: int) -> "Lineages":
        """Returns what `save` wrote; share and seed must be those that it was made with."""
        data = json.loads(path.read_text())
        lineages = cls(share, seed)
        lineages._parents = data["parents"]
        lineages._few = None if data["few"] is None else set(data["few"])
        return lineages

    def _leader(self, node: str) -> str:
        while (parent := self._parents.get(node)) is not None:
            if (grandparent := self._parents.get(parent)) is not None:
                self._parents[node] = grandparent
            node = parent
        return node


def heldout_lineages(keys: Set[str], share: float, seed: int) -> set[str]:
    """Returns the lineages to hold out: those whose hash lies below `share`.

    Where none lies below, or none above, the one with the least (or greatest) hash makes up for it, given two.
    """
    if share == 0 or len(keys) < 2:
        return set()
    ordered = sorted(keys, key=lambda key: (_position(key, seed), key))
    count = sum(_position(key, seed) < share for key in ordered)
    return set(ordered[: min(max(count, 1), len(ordered) - 1)])


def _position(key: str, seed: int) -> float:
    """Returns where a lineage stands between 0 and 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8], "big") / 2**64


def _node(row: Row) -> str:
    return "r" + _digest(row.root) if row.root else _instruction_node(row)


def _instruction_node(row: Row) -> str:
    return "i" + _digest(" ".join(row.question.content.split()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
