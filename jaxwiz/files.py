"""Files that are either whole or absent: everything is written beside its target, then renamed.

The one place that knows how jaxwiz writes, hashes and verifies files. No other module renames or calls fsync.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class UserError(ValueError):
    """A fault in what the user gave; its message names field or file, value, rule and remedy, and is shown as it is.

    Attributes:
      exit_code: of the command that it ends.
    """

    exit_code = 2


def sha256_of_bytes(data: bytes) -> str:
    """Returns the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits, read in bounded memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_path(path: Path) -> str:
    """Returns one SHA-256 for a file, or for a folder's relative file names and contents in sorted order."""
    if path.is_file():
        return sha256_of_file(path)
    digest = hashlib.sha256()
    for name, file_digest in hash_tree(path).items():
        digest.update(f"{name}\0{file_digest}\n".encode())
    return digest.hexdigest()


def hash_tree(folder: Path) -> dict[str, str]:
    """Returns {relative POSIX name: SHA-256} of every regular file below `folder`, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files}


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed over `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        _flush_file(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; on success it is flushed to disk and takes the place of `path`.

    A folder that already stands at `path` is replaced whole, never merged into. What a killed run left is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_folder(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_folder(path: Path) -> Path:
    """Returns where the folder that `atomic_folder` yields lies, for other processes that write into it, too."""
    return path.with_name(f".{path.name}.partial")


def move_into_place(source: Path, target: Path) -> None:
    """Flushes a file or folder to disk and renames it to `target`, in place of what stands there.

    A kill at any moment leaves it whole under one of the two names, and a repeated call completes the move; where there
    is no source, it has been moved.
    """
    retired = target.with_name(f".{target.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    if not source.exists():
        return
    for member in (source, *sorted(source.rglob("*"))):
        if member.is_file():
            _flush_file(member)
    if target.is_dir():
        target.rename(retired)
    os.replace(source, target)
    shutil.rmtree(retired, ignore_errors=True)


def point_to(link: Path, target: str) -> None:
    """Makes `link` a symbolic link to `target`, relative to its folder, in place of the link that it was."""
    partial = link.with_name(f".{link.name}.partial-{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    os.replace(partial, link)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 `text` to `path` atomically, creating parent folders."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically, creating parent folders."""
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def copy_files(source: Path, target: Path) -> None:
    """Copies the files of a folder, not those of folders in it, into `target`, which is created if need be."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def flush_to_disk(file: IO[bytes]) -> None:
    """Returns once everything written to an open file is on the disk; for files that grow by appending."""
    file.flush()
    os.fsync(file.fileno())


def _flush_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def free_bytes(path: Path) -> int:
    """Returns the free bytes of the disk that `path`, which need not exist yet, would lie on."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
