"""Files are whole or absent, whatever happens while they are written."""

from pathlib import Path

import pytest

from jaxwiz import files
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


def test_a_move_takes_the_place_of_file_or_folder_and_may_be_repeated(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "member").write_text(name)
    (tmp_path / ".old.retired").mkdir()  # of a call that was killed
    for _ in range(2):
        files.move_into_place(tmp_path / "new", tmp_path / "old")
        assert files.hash_tree(tmp_path) == {"old/member": files.sha256_of_bytes(b"new")}
    files.write_bytes(tmp_path / "file", b"1")
    files.write_bytes(tmp_path / "other", b"2")
    files.move_into_place(tmp_path / "file", tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "other"]
