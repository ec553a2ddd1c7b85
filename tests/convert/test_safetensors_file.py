"""Safetensors headers agree with the safetensors package, and no damaged file passes."""

import json
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.safetensors_file import DTYPES, make_header, read_header

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5).astype(jnp.bfloat16),
    "c": np.ones((1, 2, 3), np.float16),
}


def test_files_of_the_package_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**TENSORS, "empty": np.zeros((0, 4), np.float32), "ids": np.arange(3)}, path)
    found = read_header(path)
    assert found["ids"].dtype == "I64"
    assert found["empty"].shape == (0, 4)
    offsets = [place.offset for place in found.values()]
    assert offsets == sorted(offsets)
    for name, tensor in TENSORS.items():
        values = np.fromfile(path, DTYPES[found[name].dtype], tensor.size, offset=found[name].offset)
        assert values.reshape(found[name].shape).tobytes() == tensor.tobytes()


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    header, offsets = make_header({name: (tensor.shape, tensor.dtype) for name, tensor in TENSORS.items()})
    assert len(header) % 8 == 0
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write(header)
        for name, tensor in reversed(TENSORS.items()):
            file.seek(offsets[name])
            file.write(tensor.tobytes())
    loaded = load_file(path)
    assert {name: tensor.tobytes() for name, tensor in loaded.items()} == {
        name: tensor.tobytes() for name, tensor in TENSORS.items()
    }
    assert all(loaded[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def _file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header"),
        (b"1234567", "no header"),
        (struct.pack("<Q", 1 << 60) + b"{}", "a header of 1,152,921,504,606,846,976 bytes"),
        (_file(b"{"), "header is not JSON"),
        (_file(b"\xff\xfe"), "header is not JSON"),
        (_file([1]), "header is no JSON object"),
        (_file({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "without 'data_offsets'"),
        (_file({"a": _entry(0, 8, [1])}, bytes(8)), r"8 bytes for a tensor F32\[1\]"),
        (_file({"a": _entry(0, 4, [1])}, bytes(3)), "has 72 bytes, the header tells of 73"),
        (_file({"a": _entry(0, 4, [1])}, bytes(9)), "has 78 bytes, the header tells of 73"),
        (_file({"a": _entry(0, 4, [1]), "b": _entry(8, 12, [1])}, bytes(12)), "b does not lie where"),
        (_file({"a": _entry(0, 4, [1]), "b": _entry(0, 4, [1])}, bytes(4)), "b does not lie where"),
        (_file({"a": _entry(-4, 0, [1])}), "a does not lie where"),
    ],
)
def test_damaged_files_are_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=rf"damaged or truncated safetensors \(.*{message}"):
        read_header(path)


def test_no_cut_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ConversionError):
            read_header(path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"model.safetensors: cannot be read \(Is a directory\)"):
        (tmp_path / "model.safetensors").mkdir()
        read_header(tmp_path / "model.safetensors")
