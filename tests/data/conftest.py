"""Fixtures of the data tests: rows made by hand, and Code Alpaca where it lies beside the project."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.data.config import DataConfig
from jaxwiz.records import EvolvedTask

CODE_ALPACA = Path(__file__).parents[2].parent / "shared" / "data" / "code_alpaca_2k.json"


@pytest.fixture(scope="session")
def code_alpaca() -> Path:
    if not CODE_ALPACA.exists():
        pytest.skip(f"needs {CODE_ALPACA}, which is not part of the project")
    return CODE_ALPACA


def alpaca_rows(count: int) -> list[dict[str, str]]:
    """Rows of several lengths, each with its number in the answer."""
    return [
        {
            "instruction": f"Print {n} {'please ' * (n % 5)}",
            "input": "x" * (n % 3),
            "output": f"print({n})\n" * (1 + n % 4),
        }
        for n in range(count)
    ]


def evolved(id: str, root: str, instruction: str, output: str = "pass", rejected: str = "") -> EvolvedTask:
    return EvolvedTask(
        id=id,
        instruction=instruction,
        input="",
        output=output,
        root=root,
        parent="" if id == root else root,
        operation="seed" if id == root else "deepen",
        round=int(id != root),
        attempt=0,
        rejected=rejected,
    )


@pytest.fixture
def make_config(tmp_path: Path, tiny_tokenizer_folder: Path) -> Callable[..., DataConfig]:
    """A function that writes rows to a file and returns a config that reads it into rows of 256 tokens."""

    def make(rows: list[Any] | Path, out: str = "out", **settings: Any) -> DataConfig:
        source = rows if isinstance(rows, Path) else tmp_path / "rows.json"
        if not isinstance(rows, Path):
            source.write_text(json.dumps(rows))
        settings = {"sequence_length": 256, "tokenizer": tiny_tokenizer_folder, "sources": (source,), **settings}
        return DataConfig(out=tmp_path / out, **settings)

    return make
