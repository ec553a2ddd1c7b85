"""Work that takes its time and signs with its node, for tests that kill a node which is known to be at work."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS_PER_ITEM = 0.1


def slowly(folder: Path, work: Callable[..., Any], items: Iterator[Any]) -> Iterator[Any]:
    """Does `work`, and creates a file in `folder` that is named after the node."""
    import ray

    node = ray.get_runtime_context().get_node_id()

    def delayed() -> Iterator[Any]:
        for pair in items:
            (folder / node).touch()
            time.sleep(SECONDS_PER_ITEM)
            yield pair

    return work(delayed())
