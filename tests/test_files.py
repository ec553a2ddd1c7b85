"""Files are whole or absent, whatever happens while they are written."""

from pathlib import Path

import pytest

from jaxwiz.files import atomic_file, atomic_folder, sha256_of_path, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path: Path):
    target = tmp_path / "model"
    for content in ("first", "second"):
        with atomic_folder(target) as partial:
            (partial / content).touch()
    assert names(target) == ["second"]  # replaced whole, not merged
    with pytest.raises(RuntimeError), atomic_folder(target) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert names(target) == ["second"]
    assert names(tmp_path) == ["model"]


def test_what_a_killed_run_left_is_removed(tmp_path: Path):
    for leftover in (".model.partial", ".model.retired"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "old").touch()
    with atomic_folder(tmp_path / "model") as partial:
        assert not list(partial.iterdir())
    assert names(tmp_path) == ["model"]


def test_a_folder_hash_sees_names_and_contents(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = sha256_of_path(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = sha256_of_path(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, sha256_of_path(tmp_path)}) == 3
