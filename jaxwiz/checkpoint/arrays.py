"""The arrays of a checkpoint's `params/` on disk, written and read a block at a time.

Orbax writes leaves that it is given whole. A converted model's leaves are stacked over layers (2.9 GB for one matrix of
a 7B model in bfloat16), so conversion writes them here, chunk by chunk, in a layout that Orbax restores like its own:

    _CHECKPOINT_METADATA      what Orbax notes of a save: nothing here, but it warns where the file is not there
    _METADATA                 the tree: the path of every leaf
    <dotted path>/.zarray     Zarr 2: shape, dtype, size of a chunk, no compression (weights hardly compress)
    <dotted path>/3.0.1       one chunk, its place in the grid as its name; row-major, padded with zeros at the edge

Chunks are files of their own, so threads write them in any order and a device that needs a slice reads only the chunks
that the slice touches. `open_array` reads this layout and what Orbax itself writes (an OCDBT database) alike.
"""

import dataclasses
import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import tensorstore as ts

_CHECKPOINT_METADATA: dict = {"item_handlers": None, "metrics": {}, "performance_metrics": {}, "custom_metadata": {}}


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
    """How one array lies on disk.

    Attributes:
      shape: its shape.
      dtype: float32, float16 or bfloat16.
      chunks: the size of a chunk along each dimension; the last chunk along one may stick out.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]


class ArrayWriter:
    """Writes arrays into an empty folder; blocks may come in any order and from several threads."""

    def __init__(self, folder: Path, layouts: dict[str, ArrayLayout]) -> None:
        """Lays out all arrays, empty.

        Args:
          folder: to be created.
          layouts: dotted path in the parameter tree -> layout.
        """
        self._folder = folder
        self._layouts = layouts
        folder.mkdir()
        (folder / "_METADATA").write_text(json.dumps(_tree_metadata(layouts)))
        (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(_CHECKPOINT_METADATA))
        for path, layout in layouts.items():
            (folder / path).mkdir()
            (folder / path / ".zarray").write_text(json.dumps(_zarr_metadata(layout)))

    def write(self, path: str, start: tuple[int, ...], block: np.ndarray) -> None:
        """Writes a block of whole chunks.

        Args:
          path: dotted path of the array.
          start: where the block begins, a multiple of the chunk size in each dimension.
          block: values in the array's dtype, as many dimensions; ends at a multiple of the chunk size or at the edge.
        """
        layout = self._layouts[path]
        assert block.dtype == layout.dtype
        assert all(at % size == 0 for at, size in zip(start, layout.chunks, strict=True))
        counts = [math.ceil(size / chunk) for size, chunk in zip(block.shape, layout.chunks, strict=True)]
        for place in itertools.product(*map(range, counts)):
            inside = tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, layout.chunks, strict=True))
            name = ".".join(
                str(begin // size + at) for begin, size, at in zip(start, layout.chunks, place, strict=True)
            )
            with open(self._folder / path / name, "xb", buffering=0) as file:
                _write_all(file.fileno(), _padded(block[inside], layout.chunks))


def open_array(folder: Path, path: str) -> ts.TensorStore:
    """Returns a stored array for reading: `open_array(...)[3, :, 10:20].read().result()` reads just these values.

    Args:
      folder: a checkpoint's `params/`, written by `ArrayWriter` or by Orbax.
      path: dotted path of the array.

    Raises:
      ValueError: there is no such array, or its metadata is damaged.
    """
    store = {"driver": "file", "path": f"{folder.absolute()}/"}
    if (folder / "manifest.ocdbt").exists():
        kvstore: dict = {"driver": "ocdbt", "base": store, "path": f"{path}/"}
    else:
        kvstore = {**store, "path": f"{folder.absolute()}/{path}/"}
    # Without the last entry a lost chunk would be read as zeros.
    return ts.open({"driver": "zarr", "kvstore": kvstore, "fill_missing_data_reads": False}, read=True).result()


def damaged_chunks(folder: Path) -> list[str]:
    """Returns the chunks, as "path/3.0.1", that `ArrayWriter` wrote and that are lost or cut short; reads no values.

    Empty for arrays that Orbax wrote: it finds such damage itself, when it reads.
    """
    damaged = []
    for metadata in sorted(folder.glob("*/.zarray")):
        array = json.loads(metadata.read_text())
        size = math.prod(array["chunks"]) * (2 if array["dtype"] == "bfloat16" else np.dtype(array["dtype"]).itemsize)
        counts = [math.ceil(length / chunk) for length, chunk in zip(array["shape"], array["chunks"], strict=True)]
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(metadata.parent)}
        names = (".".join(map(str, place)) for place in itertools.product(*map(range, counts)))
        damaged += [f"{metadata.parent.name}/{name}" for name in names if sizes.get(name) != size]
    return damaged


def _padded(chunk: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if chunk.shape == shape:
        return np.ascontiguousarray(chunk)
    whole = np.zeros(shape, chunk.dtype)
    whole[tuple(map(slice, chunk.shape))] = chunk
    return whole


def _write_all(descriptor: int, chunk: np.ndarray) -> None:
    rest = chunk.reshape(-1).view(np.uint8).data
    while rest:
        rest = rest[os.write(descriptor, rest) :]  # one call writes 2 GiB at most


def _zarr_metadata(layout: ArrayLayout) -> dict:
    return {
        "zarr_format": 2,
        "shape": list(layout.shape),
        "chunks": list(layout.chunks),
        "dtype": "bfloat16" if layout.dtype.name == "bfloat16" else layout.dtype.str,
        "compressor": None,
        "filters": None,
        "fill_value": None,
        "order": "C",
        "dimension_separator": ".",
    }


def _tree_metadata(layouts: dict[str, ArrayLayout]) -> dict:
    """Returns Orbax's description of a nested dict of arrays (key_type 2: a key of a dict)."""
    tree = {}
    for path in layouts:
        keys = tuple(path.split("."))
        tree[str(keys)] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
    return {"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
