"""Data that is not what it was made as: rows that are left out, and shards that another file stands in for.

A damaged row is found when it is read: ArrayRecord keeps a checksum of every record, and of its own structure. What
that cannot see is a whole file that is sound and not the one that was made. So each shard is compared with its checksum
in the manifest, in a thread, while training begins: at about a gigabyte a second, each process its share of the shards.
Nothing waits for it but the end of the run, which it has to precede. Where a shard differs, its rows are read to name
the first one that is not sound.
"""

import collections
import dataclasses
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from jaxwiz import console, files
from jaxwiz.data.feed import DatasetError, RowReader
from jaxwiz.sharding.processes import Processes
from jaxwiz.train.dataset import ManifestError


class CorruptRows:
    """Notes rows that are replaced by empty ones, in `corrupt-rows.jsonl`, from whichever thread reads them.

    Each line holds "shard", "row", "cause" and "process"; a row is noted once in each start of a process.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._path = folder / "corrupt-rows.jsonl"
        self._process = processes.index
        self._seen: set[tuple[Path, int]] = set()
        self._lock = threading.Lock()

    def __call__(self, shard: Path, row: int, cause: str) -> None:
        """Notes one row, as a feed's `on_corrupt`."""
        with self._lock:
            if (shard, row) in self._seen:
                return
            self._seen.add((shard, row))
            line = {"shard": str(shard), "row": row, "cause": cause, "process": self._process}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        console.warn(f"train: {shard}: row {row} is left out ({cause}); {len(self._seen)} so far in this process")


def count_corrupt_rows(folder: Path) -> dict[str, int]:
    """Returns how many rows a run left out, by shard, over all its starts and processes."""
    path = folder / "corrupt-rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = {(line["shard"], line["row"]) for line in map(json.loads, lines)}
    return dict(sorted(collections.Counter(shard for shard, _ in rows).items()))


class ShardCheck:
    """Compares shards with the checksums of their manifests, in a thread that begins at once."""

    def __init__(self, folders: Sequence[Path], processes: Processes, tolerant: bool) -> None:
        """Begins.

        Args:
          folders: of data stages.
          processes: among which the shards are dealt out.
          tolerant: true warns of a difference instead of keeping it for `require`, since rows are checked one by one.
        """
        self._tolerant = tolerant
        self._fault: str | None = None
        shards = [shard for folder in folders for shard in _recorded(folder)]
        mine = shards[processes.index :: processes.count]
        self._thread = threading.Thread(target=self._compare, args=[mine], name="shard check", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Returns if nothing is known yet against any shard.

        Raises:
          ManifestError: a shard is not the one that was made.
        """
        if self._fault is not None:
            raise ManifestError(self._fault)

    def finish(self) -> None:
        """Returns once all shards were compared; raises as `require` does."""
        self._thread.join()
        self.require()

    def _compare(self, shards: Sequence["_Shard"]) -> None:
        for shard in shards:
            fault = shard.fault()
            if fault is not None and not self._tolerant:
                self._fault = fault
                return
            if fault is not None:
                console.warn(f"train: {fault}")


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A shard as its manifest describes it."""

    path: Path
    sha256: str
    rows: int
    sequence_length: int

    def fault(self) -> str | None:
        try:
            found = files.sha256_of_file(self.path)
        except OSError as error:
            return f"{self.path}: cannot be read ({error.strerror}); copy the dataset again"
        if found == self.sha256:
            return None
        try:
            for _ in RowReader([(self.path, self.rows)], self.sequence_length):
                pass
        except DatasetError as error:
            return str(error)
        return (
            f"{self.path}: SHA-256 {found[:12]}, but manifest.json says {self.sha256[:12]}, though each row can be "
            "read: the file was changed or replaced; copy the dataset again, or run the data stage again"
        )


def _recorded(folder: Path) -> list[_Shard]:
    """Returns the shards of a dataset as the manifest describes them."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        _Shard(folder / "dataset" / shard["name"], shard["sha256"], shard["rows"], manifest["sequence_length"])
        for split in manifest["splits"].values()
        for shard in split["shards"]
    ]
