"""One of several processes, each with two devices, that feed a mesh together; prints what it read and what it holds.

XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m tests.train.feeding_process DATASET PORT INDEX COUNT
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax

from jaxwiz.data.feed import Batch, Feed
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.feeding import device_batches

MESHES = (
    {"slice": 2, "fsdp": 2},
    {"data": 2, "fsdp": 1, "context": 2},
    {"fsdp": 1, "context": 4},
    {"data": 2, "fsdp": 1, "tensor": 2},
)
ROWS = 8


class WatchedFeed(Feed):
    """A feed that keeps note of which rows of which step were read."""

    def batch(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        read.append((step, begin, end))
        return super().batch(step, begin, end)


read: list[Any] = []


def main() -> None:
    folder, port, index, count = sys.argv[1:]
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(index))
    results = []
    for mesh in MESHES:
        read.clear()
        sharding = batch_sharding(make_mesh(MeshConfig(**mesh)))
        held = []
        with device_batches(WatchedFeed(Path(folder), "train", ROWS, 1), sharding, 2, 5, vocab_size=384) as batches:
            for batch in batches:
                shards = {name: array.addressable_shards for name, array in batch.items()}
                held.append({name: [(_bounds(s.index, array.shape), s.data.tolist()) for s in shards[name]]
                             for name, array in batch.items()})  # fmt: skip
        results.append({"read": sorted(read), "held": held})
    print(json.dumps(results))


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> list[list[int]]:
    return [list(part.indices(size)[:2]) for part, size in zip(index, shape, strict=True)]


if __name__ == "__main__":
    main()
