"""Safetensors files: headers and single rows, so that tensors can be moved a slice at a time.

The safetensors package maps a file into memory or wants every tensor of a file at once. The format is simple enough to
do without (github.com/huggingface/safetensors, "Format"): 8 bytes with the header's length N, N bytes of JSON that name
dtype, shape and place of each tensor, then the tensors' bytes, little-endian, row-major, without gaps.
"""

import dataclasses
import json
import math
import struct
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxwiz.convert.names import ConversionError

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_MAX_HEADER_BYTES = 100_000_000  # as in the safetensors package
_ALIGNMENT = 8


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in a file.

    Attributes:
      path: the file.
      offset: its first byte, from the beginning of the file.
      shape: its shape.
      dtype: its dtype's name as the file spells it, "BF16" for instance.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by name, in the order in which they lie there.

    Raises:
      ConversionError: the file is not safetensors, is damaged or is cut short.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            prefix = file.read(8)
            _require(path, len(prefix) == 8, "no header")
            (length,) = struct.unpack("<Q", prefix)
            _require(path, length <= min(_MAX_HEADER_BYTES, size - 8), f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConversionError(_damaged(path, f"header is not JSON: {error}")) from None
    _require(path, isinstance(header, dict), "header is no JSON object")
    header.pop("__metadata__", None)
    begin = 8 + length
    try:
        entries = {name: _entry(path, begin, entry) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ConversionError(_damaged(path, f"header entry without {error}")) from None
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1][0].offset, item[1][1])))
    end = begin
    for name, (tensor, tensor_end) in ordered.items():
        _require(path, tensor.offset == end and tensor_end >= end, f"{name} does not lie where the one before it ends")
        end = tensor_end
    _require(path, end == size, f"has {size:,} bytes, the header tells of {end:,}")
    return {name: tensor for name, (tensor, _) in ordered.items()}


def read_stored_rows(tensor: StoredTensor, start: int, stop: int) -> np.ndarray:
    """Returns a part of a tensor along its first axis.

    Read, not mapped: pages of a mapped file would count as this process's memory.

    Raises:
      ConversionError: the file cannot be read, or ends before.
    """
    values = np.empty((stop - start, *tensor.shape[1:]), DTYPES[tensor.dtype])
    row = math.prod(tensor.shape[1:]) * values.itemsize
    rest = values.reshape(-1).view(np.uint8).data
    try:
        with open(tensor.path, "rb", buffering=0) as file:
            file.seek(tensor.offset + start * row)
            while rest:
                count = file.readinto(rest)
                if not count:
                    raise ConversionError(f"{tensor.path}: ends in the middle of a tensor; fetch the file again")
                rest = rest[count:]
    except OSError as error:
        raise ConversionError(f"{tensor.path}: cannot be read ({error.strerror}); check the disk") from None
    return values


def make_header(tensors: dict[str, tuple[tuple[int, ...], np.dtype]]) -> tuple[bytes, dict[str, int]]:
    """Returns the bytes that a file begins with, and the offset of each tensor's first byte in it.

    Args:
      tensors: name -> (shape, dtype), in the order in which they shall lie.
    """
    # transformers refuses a file without this format entry.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    places, end = {}, 0
    for name, (shape, dtype) in tensors.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        places[name] = begin
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, {name: 8 + len(text) + begin for name, begin in places.items()}


def _entry(path: Path, begin: int, entry: Any) -> tuple[StoredTensor, int]:
    shape = tuple(int(size) for size in entry["shape"])
    first, last = (int(offset) for offset in entry["data_offsets"])
    dtype = str(entry["dtype"])
    if dtype in DTYPES and last - first != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ConversionError(_damaged(path, f"{last - first:,} bytes for a tensor {dtype}{list(shape)}"))
    return StoredTensor(path, begin + first, shape, dtype), begin + last


def _require(path: Path, fits: bool, fault: str) -> None:
    if not fits:
        raise ConversionError(_damaged(path, fault))


def _damaged(path: Path, fault: str) -> str:
    return f"{path}: damaged or truncated safetensors ({fault}); fetch the file again"
