"""Real data beside the project's root, which no commit holds: tests that need a file of it skip where it is absent."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_file(name: str) -> Path:
    """Returns the path of a file of ../shared/data, or skips the test."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{name}")
    return path


def shared_rows(name: str) -> list[dict[str, Any]]:
    """Returns the rows of a gzipped JSONL file of ../shared/data, or skips the test."""
    return [json.loads(line) for line in gzip.decompress(shared_file(name).read_bytes()).splitlines()]
