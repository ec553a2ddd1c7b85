"""Weights flowing from a reader to a writer: in blocks of rows, by a few threads, within a limit of memory.

A block is read, checked, turned and written by one thread, which then takes the next one; nothing is queued. So memory
is what the process had before plus a known amount for each thread, whatever the size of the model, and `plan_flow`
says before anything is read whether the limit can be met.
"""

import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxwiz.console import progress
from jaxwiz.convert.memory import resident_bytes
from jaxwiz.convert.names import ConversionError, Rule, rules_for, tensor_names
from jaxwiz.convert.tensors import TensorReader
from jaxwiz.model.config import ModelConfig

# A block is no larger than this in its widest form, unless one row (one head, for queries and keys) is.
BLOCK_BYTES = 64 << 20

# What one thread may hold, in blocks: as read, decoded, turned, being written. Measured are 2 for an import of float32,
# 3 for an export, 4 for one of the compressed chunks that Orbax writes; the rest is margin, also for dequantisation.
_BLOCKS_PER_THREAD = 6

_MAX_THREADS = 8

# Rows copied together when a block is turned: their cache lines stay in the first-level cache. Of 1 to 256 rows the
# fastest by far (2.5 GB/s a core in bfloat16, against 0.3 GB/s for NumPy's plain transposed copy).
_STRIP_ROWS = 16

# Exponent bits, all of which are set in infinities and NaNs alone; by bytes of a float and whether it is bfloat16.
_EXPONENTS = {"float32": 0x7F800000, "float16": 0x7C00, "bfloat16": 0x7F80}


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of one tensor: what one thread moves at a time.

    Attributes:
      name: the tensor's Hugging Face name.
      rule: how it is laid out.
      layer: its layer, 0 where there is one tensor only.
      start: its first row.
      stop: the row after its last.
    """

    name: str
    rule: Rule
    layer: int
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Flow:
    """How a model is moved.

    Attributes:
      threads: blocks that are in work at the same time.
      allow_nonfinite: whether infinities and NaNs may pass.
    """

    threads: int = 1
    allow_nonfinite: bool = False

    def run(
        self, title: str, reader: TensorReader, blocks: list[Block], move: Callable[[Block, np.ndarray], None]
    ) -> None:
        """Reads every block and hands it to `move`, several at once and about in order.

        Args:
          title: what is being done, for the progress display.
          reader: where blocks come from.
          blocks: what to move.
          move: takes a block and its rows, in Hugging Face's layout and the reader's dtype, and writes them.

        Raises:
          ConversionError: values are not finite though they must be; names every tensor, after all were read.
        """
        sizes = [_bytes_of(block, reader) for block in blocks]
        nonfinite: dict[str, int] = {}
        lock, failed = threading.Lock(), threading.Event()

        def work(block: Block) -> None:
            if failed.is_set():
                return
            try:
                work_on(block)
            except BaseException:
                failed.set()
                raise

        def work_on(block: Block) -> None:
            rows = reader.read_rows(block.name, block.start, block.stop)
            count = count_nonfinite(rows)
            if count:
                with lock:
                    nonfinite[block.name] = nonfinite.get(block.name, 0) + count
            if not count or self.allow_nonfinite:
                move(block, rows)

        began = time.monotonic()
        done = 0
        with (
            progress(title, round(sum(sizes) / 1e6), "MB") as advance,
            ThreadPoolExecutor(self.threads, "convert") as pool,
        ):
            try:
                for size, _ in zip(sizes, pool.map(work, blocks), strict=True):
                    before, done = done, done + size
                    rate = done / 1e9 / max(time.monotonic() - began, 1e-3)
                    advance(round(done / 1e6) - round(before / 1e6), f"{done / 1e9:.1f} GB, {rate:.2f} GB/s")
            finally:
                failed.set()  # also after an interrupt: what has not begun never does
        if nonfinite and not self.allow_nonfinite:
            raise ConversionError(
                f"{reader.where}: {len(nonfinite)} tensor(s) hold NaN or infinite values; get the model from another "
                "source, or set allow_nonfinite: true if they belong there\n  "
                + "\n  ".join(f"{name}: {count:,}" for name, count in sorted(nonfinite.items()))
            )


SINGLE_THREAD = Flow()


def plan_flow(config: ModelConfig, max_host_gib: float, allow_nonfinite: bool, extra_bytes: int = 0) -> Flow:
    """Returns how a model is moved within a limit of memory.

    Args:
      config: the model's shape.
      max_host_gib: what the process may occupy, in GiB.
      allow_nonfinite: whether infinities and NaNs may pass.
      extra_bytes: what else the conversion will hold, such as a model initialised in memory.

    Raises:
      ConversionError: the limit cannot be met; names the least that would do.
    """
    largest = max(
        BLOCK_BYTES, *(4 * rule.rows_per_unit(config) * _row_size(rule, config) for rule in rules_for(config))
    )
    per_thread = _BLOCKS_PER_THREAD * largest
    base = resident_bytes() + extra_bytes
    threads = int((max_host_gib * 2**30 - base) // per_thread)
    if threads < 1:
        least = math.ceil((base + per_thread) / 2**30 * 10) / 10
        raise ConversionError(
            f"max_host_gib = {max_host_gib:g}: too little, this conversion needs {least:g}; raise it to that"
        )
    return Flow(min(threads, os.cpu_count() or 1, _MAX_THREADS), allow_nonfinite)


def blocks_of(names: Iterable[str], config: ModelConfig) -> list[Block]:
    """Returns the blocks of the tensors `names`, in that order; names that no parameter has are left out."""
    places = {
        name: (rule, layer) for rule in rules_for(config) for layer, name in enumerate(tensor_names(rule, config))
    }
    return [
        Block(name, rule, layer, start, min(start + step, rows))
        for name in names
        if name in places
        for rule, layer in [places[name]]
        for rows, step in [(rule.tensor_shape(config)[0], rows_per_block(rule, config))]
        for start in range(0, rows, step)
    ]


def rows_per_block(rule: Rule, config: ModelConfig) -> int:
    """Returns how many rows a block of this tensor has: of about equal blocks, a multiple of the head size for q and k.

    Reckoned in float32, so that it depends on the shape alone and the blocks of all dtypes are the same.
    """
    unit, rows = rule.rows_per_unit(config), rule.tensor_shape(config)[0]
    units = rows // unit
    count = math.ceil(units / max(1, BLOCK_BYTES // (4 * unit * _row_size(rule, config))))
    return math.ceil(units / count) * unit


def copy_turned(target: np.ndarray, source: np.ndarray) -> None:
    """Copies a matrix [rows, columns] into another of any memory order and dtype, fast where the orders differ."""
    if source.ndim < 2:
        target[...] = source
        return
    axis = int(np.argmax(source.strides))
    for start in range(0, source.shape[axis], _STRIP_ROWS):
        strip = tuple([slice(None)] * axis + [slice(start, start + _STRIP_ROWS)])
        target[strip] = source[strip]


def count_nonfinite(values: np.ndarray) -> int:
    """Returns how many of float32, float16 or bfloat16 `values` are infinite or NaN, in little extra memory."""
    bits = np.dtype(np.uint32 if values.itemsize == 4 else np.uint16)
    exponent = bits.type(_EXPONENTS[values.dtype.name])
    flat = values.ravel(order="K").view(bits)
    step = 1 << 18  # stays in the second-level cache
    counts = [np.count_nonzero((flat[at : at + step] & exponent) == exponent) for at in range(0, len(flat), step)]
    return int(sum(counts))


def _bytes_of(block: Block, reader: TensorReader) -> int:
    row = math.prod(reader.shapes[block.name][1:]) * reader.dtypes[block.name].itemsize
    return (block.stop - block.start) * row


def _row_size(rule: Rule, config: ModelConfig) -> int:
    return math.prod(rule.tensor_shape(config)[1:])
