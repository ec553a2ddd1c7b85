"""What runs on a node: one stream of work, fed with shards. Imports no Ray, which only carries its calls.

The work goes on across shards: while the last items of one shard are under way, the first of the next have begun.
"""

import hashlib
import platform
import queue
import threading
from collections.abc import Hashable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jaxwiz
from jaxwiz.fanout.stream import Work

Pair = tuple[Hashable, Any]


class Member:
    """A worker process: `do` may be called from several threads at once."""

    def __init__(self, work: Work[Any, Any, Any]) -> None:
        """Begins to work; see `fan_out` for what `work` is."""
        self._work = work
        self._items: queue.SimpleQueue[Pair] = queue.SimpleQueue()
        self._mailboxes: dict[Hashable, queue.SimpleQueue[Pair | None]] = {}  # of the call that waits for each key
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._stream, daemon=True).start()

    def identity(self) -> dict[str, str]:
        """Returns what must be the same on all nodes; see the function of this name."""
        return identity()

    def do(self, shard: list[Pair]) -> list[Pair]:
        """Returns (key, result) of each (key, item) of a shard once all are there, in the order in which they came.

        Raises:
          Exception: what the work raised, also for later shards.
        """
        mailbox: queue.SimpleQueue[Pair | None] = queue.SimpleQueue()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._mailboxes.update({key: mailbox for key, _ in shard})
        for pair in shard:
            self._items.put(pair)
        results = []
        for _ in shard:
            answer = mailbox.get()
            if answer is None:
                assert self._failure is not None
                raise self._failure
            results.append(answer)
        return results

    def _stream(self) -> None:
        try:
            for key, result in self._work(self._drawn_items()):
                self._mailboxes.pop(key).put((key, result))
            raise RuntimeError("the work ended while there may be more items; this is a bug in jaxwiz")
        except BaseException as error:
            with self._lock:
                self._failure = error
                for mailbox in self._mailboxes.values():
                    mailbox.put(None)

    def _drawn_items(self) -> Iterator[Pair]:
        while True:
            yield self._items.get()


def identity() -> dict[str, str]:
    """Returns what decides results beside the work itself, by name: the code, Python, processor type, and libraries."""
    digest = hashlib.sha256()
    package = Path(jaxwiz.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    found = {
        "jaxwiz": f"{jaxwiz.__version__} with sources {digest.hexdigest()[:12]}",
        "Python": platform.python_version(),
        "processor": platform.machine(),
    }
    for name in ("numpy", "jax", "jaxlib", "tokenizers", "sentencepiece", "array_record"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
