"""Killed, or out of disk, a conversion leaves its target as it was, and the next one works and tidies up."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import run
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.files import hash_tree
from tests.disks import limited_file_size, small_disk

KILLED = Path(__file__).with_name("killed_conversion.py")


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: ModelFiles) -> dict[str, Any]:
    """A Hugging Face folder (target: checkpoint) or a checkpoint (target: hf)."""
    write_hf_folder(tmp_path / "hf", tiny_model)
    folder = {"kind": "hf", "path": str(tmp_path / "hf")}
    if request.param == "hf":
        return {"source": folder, "target": "checkpoint"}
    out = run(_config(tmp_path / "source", source=folder))
    return {"source": {"kind": "checkpoint", "path": str(out / "model")}, "target": "hf"}


def _config(out: Path, **body: Any) -> ConvertConfig:
    return parse_config({"out": str(out), **body}, ConvertConfig, "test")


def _kill_half_way(folder: Path, out: Path, body: dict[str, Any]) -> None:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"out": str(out), **body}))
    process = subprocess.Popen([sys.executable, str(KILLED), str(config)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("source", ["hf", "checkpoint"], indirect=True)
def test_killed_half_way_leaves_the_target_absent_and_the_next_run_works(tmp_path: Path, source: dict) -> None:
    out, undisturbed = tmp_path / "out", run(_config(tmp_path / "undisturbed", **source))
    _kill_half_way(tmp_path, out, source)
    left = sorted(path.name for path in out.iterdir())
    assert left == [".model.partial", ".tokenizer"]  # it was writing
    run(_config(out, **source))
    assert sorted(path.name for path in out.iterdir()) == ["model", "summary.txt"]
    assert hash_tree(out / "model") == hash_tree(undisturbed / "model")


@pytest.mark.parametrize("source", ["hf"], indirect=True)
def test_killed_half_way_leaves_an_older_result_complete(tmp_path: Path, source: dict) -> None:
    out = run(_config(tmp_path / "out", **source))
    before = hash_tree(out / "model")
    _kill_half_way(tmp_path, out, source)
    assert hash_tree(out / "model") == before


@pytest.mark.parametrize("source", ["hf", "checkpoint"], indirect=True)
def test_a_write_that_fails_is_one_clear_error(tmp_path: Path, source: dict) -> None:
    out = tmp_path / "out"
    with limited_file_size(25_000), pytest.raises(ConversionError) as raised:
        run(_config(out, **source))
    assert str(raised.value).startswith(f"out = '{out}': File too large")
    assert "are free there; make room, or choose another folder" in str(raised.value)
    assert not list(out.iterdir())


@pytest.mark.parametrize("source", ["hf", "checkpoint"], indirect=True)
def test_a_full_disk_is_one_clear_error(tmp_path: Path, source: dict) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(ConversionError, match=r"GB to write, 0\.0 GB free; make room|No space left on device"):
            run(_config(disk / "out", **source))
        assert not list((disk / "out").iterdir())


@pytest.mark.parametrize("source", ["hf", "checkpoint"], indirect=True)
def test_a_target_that_is_a_file_is_one_clear_error(tmp_path: Path, source: dict) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match=r"out = '.*file/out': Not a directory"):
        run(_config(tmp_path / "file" / "out", **source))


@pytest.mark.parametrize("source", ["hf"], indirect=True)
def test_nonfinite_weights_are_counted_and_refused(tmp_path: Path, source: dict) -> None:
    path = Path(source["source"]["path"]) / "model.safetensors"
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    places = {"model.layers.1.mlp.up_proj.weight": 2, "model.norm.weight": 1}
    for name, count in places.items():
        begin = 8 + length + entries[name]["data_offsets"][0]
        content[begin : begin + 4 * count] = b"\x00\x00\xc0\x7f" * count  # NaN
    path.write_bytes(content)
    with pytest.raises(ConversionError) as raised:
        run(_config(tmp_path / "out", **source))
    assert str(raised.value).splitlines()[1:] == [f"  {name}: {count}" for name, count in sorted(places.items())]
    assert "2 tensor(s) hold NaN or infinite values" in str(raised.value)
    assert not list((tmp_path / "out").iterdir())
    checkpoint = run(_config(tmp_path / "out", allow_nonfinite=True, **source)) / "model"
    back = {"source": {"kind": "checkpoint", "path": str(checkpoint)}, "target": "hf"}
    with pytest.raises(ConversionError, match="hold NaN"):
        run(_config(tmp_path / "back", **back))
    exported = run(_config(tmp_path / "back", allow_nonfinite=True, **back)) / "model" / "model.safetensors"
    assert exported.read_bytes() == bytes(content)
