"""PyTorch's pickled weights (`torch.save` since version 1.6) without PyTorch, and without running what they hold.

Such a file is a Zip archive: `data.pkl` describes the tensors, `data/0`, `data/1`, ... hold their bytes, uncompressed.
A pickle may name any function to be called; the reader here knows the names that describe tensors and refuses every
other. So a description is read as data, and the bytes are then read from their place in the archive like safetensors.
"""

import collections
import dataclasses
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.safetensors_file import StoredTensor

_STORAGES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_LOCAL_HEADER_BYTES = 30


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Elements in one member of the archive."""

    dtype: str
    key: str
    elements: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor's place in a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickled(path: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by name, in the order in which they lie there.

    Raises:
      ConversionError: not a Zip archive of `torch.save`, damaged, naming anything but tensors, or holding tensors that
        are not contiguous.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            description = next((name for name in members if name.endswith("/data.pkl") or name == "data.pkl"), None)
            if description is None:
                raise ConversionError(f"{path}: no data.pkl in it, not of torch.save; use safetensors")
            prefix = description.removesuffix("data.pkl")
            if prefix + "byteorder" in members and archive.read(prefix + "byteorder") != b"little":
                raise ConversionError(f"{path}: saved in big-endian order; convert it to safetensors where it was made")
            with archive.open(description) as file:
                tensors = _TensorUnpickler(file, path).load()
        return _places(path, prefix, members, _flatten(path, tensors))
    except zipfile.BadZipFile:
        raise ConversionError(
            f"{path}: no Zip archive: truncated, or saved by PyTorch before 1.6; fetch it again, or load and save it "
            "with a newer PyTorch"
        ) from None
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error})") from None


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles descriptions of tensors and refuses everything else."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def load(self) -> Any:
        try:
            return super().load()
        except ConversionError:
            raise
        except Exception as error:  # a damaged pickle can fail in any way
            raise ConversionError(f"{self._path}: damaged description of tensors ({error}); fetch it again") from None

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) not in known:
            raise ConversionError(
                f"{self._path}: asks to call {module}.{name}, which plain weights do not need; do not trust it, and "
                "use safetensors"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, elements = pid
        if kind != "storage":
            raise ConversionError(f"{self._path}: refers to {kind!r}, expected a tensor's storage; use safetensors")
        return _Storage(str(dtype), str(key), int(elements))


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _flatten(path: Path, tensors: Any) -> dict[str, _Tensor]:
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ConversionError(f"{path}: must hold a dict of tensors (a state_dict); save one, or use safetensors")
    return {str(name): tensor for name, tensor in tensors.items()}


def _places(
    path: Path, prefix: str, members: dict[str, zipfile.ZipInfo], tensors: dict[str, _Tensor]
) -> dict[str, StoredTensor]:
    places, faults = {}, []
    with open(path, "rb") as file:
        for name, tensor in tensors.items():
            storage = tensor.storage
            info = members.get(f"{prefix}data/{storage.key}")
            size = _ITEM_BYTES.get(storage.dtype, 0)
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < storage.elements * size:
                faults.append(f"{name}: its bytes (data/{storage.key}) are missing, compressed or cut short")
                continue
            if not _is_contiguous(tensor):
                faults.append(f"{name}: is a view with strides {list(tensor.strides)}, not contiguous")
                continue
            # The local header repeats the name and may have an extra field of another length than the directory's.
            file.seek(info.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            begin = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
            places[name] = StoredTensor(path, begin + tensor.offset * size, tensor.shape, storage.dtype)
    if faults:
        raise ConversionError(
            f"{path}: {len(faults)} tensor(s) cannot be read; use safetensors\n  " + "\n  ".join(faults)
        )
    return dict(sorted(places.items(), key=lambda item: item[1].offset))


def _is_contiguous(tensor: _Tensor) -> bool:
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return 0 <= tensor.offset <= tensor.storage.elements - expected
