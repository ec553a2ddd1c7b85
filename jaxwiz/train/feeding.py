"""Batches on the devices, ahead of the steps that need them.

    with device_batches(feed, batch_sharding(mesh), first, last, vocab_size) as batches:
        for batch in batches:
            state, metrics = train_step(state, batch)

Grain's threads read and decode the next batches and hand them to the devices while a step runs; JAX copies without
being waited for. Each process reads the rows that its own devices hold, whatever the mesh, and they become one global
array. How far it reads ahead changes when a batch is read, never what is in it.

What goes wrong in a thread is raised where the batch would have come out. A feed cannot end early: fewer batches than
were asked for is an error. A row with ids that the model does not have counts as one that cannot be read: an error, or
an empty row where the feed has an `on_corrupt`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxwiz.data.feed import Batch, DatasetError, Feed
from jaxwiz.train.step import DeviceBatch

THREADS = 2
BATCHES_AHEAD = 4


@contextlib.contextmanager
def device_batches(
    feed: Feed, sharding: NamedSharding, first: int, last: int, vocab_size: int
) -> Iterator[Iterator[DeviceBatch]]:
    """Yields an iterator over the batches of steps `first` to `last`, each int32 [B, T] arrays laid out by `sharding`.

    Args:
      feed: says what is in them.
      sharding: how [B, T] arrays lie on the mesh; B must divide by its devices along the batch.
      first: the first step, from 0.
      last: the step to stop before.
      vocab_size: ids must be below it.

    Raises:
      DatasetError: (on iteration) a row cannot be read, or holds an id that the model does not have.
    """
    source = grain.MapDataset.range(first, last).map(lambda step: place_batch(feed, sharding, step, vocab_size))
    ahead = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=BATCHES_AHEAD)
    batches = iter(source.to_iter_dataset(ahead))
    try:
        yield _exactly(last - first, batches)
    finally:
        batches.close()


def place_batch(feed: Feed, sharding: NamedSharding, step: int, vocab_size: int) -> DeviceBatch:
    """Returns the batch of one step on the devices; see `device_batches`. Does not wait for the copy."""
    shape = (feed.batch_size, feed.sequence_length)
    spans = _local_rows(sharding, shape)
    parts = {span: feed.batch(step, *span) for span in spans}
    for (begin, _), part in parts.items():
        _require_known_tokens(feed, step, begin, part, vocab_size)

    def place(name: str) -> jax.Array:
        arrays = {span: getattr(part, name).astype(np.int32, copy=False) for span, part in parts.items()}

        def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            rows, columns = index
            return arrays[_span(rows, shape[0])][:, columns]

        return jax.make_array_from_callback(shape, sharding, of_device)

    return {field.name: place(field.name) for field in dataclasses.fields(Batch)}


def _local_rows(sharding: NamedSharding, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the ranges of rows that this process's devices hold, each once."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    return sorted({_span(index[0], shape[0]) for index in indices if index is not None})


def _span(rows: slice, size: int) -> tuple[int, int]:
    begin, end, _ = rows.indices(size)
    return begin, end


def _exactly(count: int, batches: Iterator[DeviceBatch]) -> Iterator[DeviceBatch]:
    for number in range(count):
        try:
            yield next(batches)
        except StopIteration as error:
            raise RuntimeError(
                f"the feed ended after {number} of {count} batches; this is a fault of jaxwiz"
            ) from error


def _require_known_tokens(feed: Feed, step: int, begin: int, part: Batch, vocab_size: int) -> None:
    """Raises at the first row with an unknown id, or empties all such rows and tells the feed's `on_corrupt`."""
    if part.tokens.min() >= 0 and part.tokens.max() < vocab_size:
        return
    unknown = (part.tokens < 0) | (part.tokens >= vocab_size)
    for row in np.flatnonzero(unknown.any(axis=1)).tolist():
        token = part.tokens[row][unknown[row]][0]
        path, number = feed.locate(step, begin + row) or (Path("an empty row"), 0)
        if feed.on_corrupt is None:
            raise DatasetError(
                f"{path}: row {number}, in the batch of step {step + 1}, holds token id {token}, but the model "
                f"has {vocab_size} tokens; build the dataset with the checkpoint's own tokenizer"
            )
        feed.on_corrupt(path, number, f"token id {token}, but the model has {vocab_size} tokens")
        for field in dataclasses.fields(part):
            getattr(part, field.name)[row] = 0
