"""The Python of docs/using.md runs against the server as it stands there."""

import re
from pathlib import Path

import pytest

from tests.serve.conftest import RunningServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "using.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["generation", "completion", "summarization"])
def test_a_block_runs(server: RunningServer, block: str, capsys: pytest.CaptureFixture):
    exec(block.replace("http://127.0.0.1:8000", server.url).replace('"my-model"', '"tiny"'), {})
    assert len(capsys.readouterr().out) > 1
