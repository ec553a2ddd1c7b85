"""Files of torch.save are read without torch and without running anything; what isn't plain tensors is refused."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.pickled import read_pickled
from jaxwiz.convert.run import check, run
from jaxwiz.convert.safetensors_file import DTYPES
from jaxwiz.convert.tensors import ModelFiles

SaveLikeTorch = Callable[[Path, dict[str, np.ndarray]], None]

GOLDEN = Path(__file__).parents[1] / "golden" / "pickled"  # made by tests/golden/make_pickled_golden.py


def _values(path: Path) -> dict[str, np.ndarray]:
    return {
        name: np.fromfile(path, DTYPES[place.dtype], int(np.prod(place.shape)), offset=place.offset).reshape(
            place.shape
        )
        for name, place in read_pickled(path).items()
        if place.dtype in DTYPES
    }


def test_what_torch_saved_is_read() -> None:
    found = _values(GOLDEN / "plain.bin")
    numbers = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "matrix": numbers,
        "rows": numbers[1:3],
        "half": np.arange(5, dtype=np.float16),
        "brain": np.arange(6).astype(ml_dtypes.bfloat16).reshape(3, 2),
        "parameter": np.ones(2, np.float32),
        "scalar": np.float32(7).reshape(()),
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert read_pickled(GOLDEN / "plain.bin")["ids"].dtype == "I64"


def test_a_state_dict_is_read() -> None:
    assert _values(GOLDEN / "state_dict.bin")["weight"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "views.bin",
            r"2 tensor\(s\) cannot be read.*\n  turned: is a view with strides \[1, 6\].*\n  columns: is a view",
        ),
        ("nested.bin", "must hold a dict of tensors"),
        ("module.bin", r"asks to call torch\.nn\.modules\.linear\.Linear"),
        ("legacy.bin", r"saved by PyTorch before 1\.6"),
    ],
)
def test_what_is_not_plain_tensors_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        read_pickled(GOLDEN / name)


class _Hostile:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _archive(path: Path, description: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", description)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(exec, ("open('run','w')",)), (Path, ("run",)), (getattr, ("", "join")), (__import__, ("os",))],
)
def test_no_function_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4):
        _archive(tmp_path / "model.bin", pickle.dumps({"a": _Hostile(function, *arguments)}, protocol))
        with pytest.raises(ConversionError, match=r"asks to call .*use safetensors"):
            read_pickled(tmp_path / "model.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    content = (GOLDEN / "plain.bin").read_bytes()
    path = tmp_path / "model.bin"
    for length in range(0, len(content), 53):
        path.write_bytes(content[:length])
        with pytest.raises(ConversionError):
            read_pickled(path)
    _archive(path, b"\x80\x02}q\x00(")
    with pytest.raises(ConversionError, match="damaged description of tensors"):
        read_pickled(path)
    _archive(path, pickle.dumps({"a": 1}))
    with pytest.raises(ConversionError, match="must hold a dict of tensors"):
        read_pickled(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(ConversionError, match=r"no data\.pkl"):
        read_pickled(path)


def test_elements_beyond_a_storage_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(GOLDEN / "state_dict.bin") as source, zipfile.ZipFile(tmp_path / "cut.bin", "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, data[:-4] if "/data/" in info.filename else data)
    with pytest.raises(ConversionError, match=r"weight: its bytes .* are missing, compressed or cut short"):
        read_pickled(tmp_path / "cut.bin")


@pytest.fixture
def pickled_folder(tmp_path: Path, tiny_model: ModelFiles, save_like_torch: SaveLikeTorch) -> Path:
    """A Hugging Face folder with two pickled shards and their index."""
    write_hf_folder(tmp_path / "hf", tiny_model)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    shutil.copytree(tmp_path / "hf", tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[:10], names[10:]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        save_like_torch(tmp_path / "pickled" / file, {name: np.ascontiguousarray(tensors[name]) for name in part})
        weight_map |= dict.fromkeys(part, file)
    (tmp_path / "pickled" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path / "pickled"


def test_a_pickled_folder_converts_where_it_is_allowed(tmp_path: Path, pickled_folder: Path) -> None:
    source = {"kind": "hf", "path": str(pickled_folder)}
    refused = parse_config({"out": str(tmp_path / "out"), "source": source}, ConvertConfig, "test")
    with pytest.raises(ConversionError, match=r"only pickled weights here .* set source\.allow_pickle: true"):
        run(refused)
    assert any("allow_pickle" in finding.message for finding in check(refused))
    body = {"out": str(tmp_path / "out"), "source": {**source, "allow_pickle": True}, "target": "hf"}
    exported = run(parse_config(body, ConvertConfig, "test")) / "model" / "model.safetensors"
    assert exported.read_bytes() == (tmp_path / "hf" / "model.safetensors").read_bytes()
