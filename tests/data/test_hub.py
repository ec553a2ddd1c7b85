"""Data sets on a hub: fetched from a server on this machine that speaks the hub's protocol, and its faults."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jaxwiz.data.hub import choose_files
from tests.local_hub import LocalHub, local_hub

ROWS = [{"instruction": f"Add {n}.", "input": "", "output": f"{n}"} for n in range(5)]


def parquet_bytes(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FILES = {
    "README.md": b"# a data set",
    "data/test-00000-of-00001.parquet": b"never fetched",
    "data/train-00000-of-00002.parquet": parquet_bytes(ROWS[:3]),
    "data/train-00001-of-00002.parquet": parquet_bytes(ROWS[3:]),
    "extra/more.jsonl": json.dumps(ROWS[0]).encode() + b"\n{",
    "run.py": b"raise SystemExit('never fetched')",
}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """A hub with one data set, owner/name."""
    with local_hub({"datasets/owner/name": FILES}) as running:
        yield running


READ = """
import json, sys
from jaxwiz.data.hub import HubDataset, local_files
from jaxwiz.data.sources import Row, read_source
from jaxwiz.files import UserError
try:
    files = local_files([HubDataset(**json.loads(sys.argv[1]))])
    items = [item for file in files for item in read_source(file)]
    print(json.dumps([[file.name for file in files], [getattr(item, "instruction", "bad") for item in items]]))
except UserError as error:
    print(error)
"""


def read(hub: LocalHub, home: Path, **dataset: object) -> str:
    """What a process prints that reads a data set."""
    command = [sys.executable, "-c", READ, json.dumps({"repo_id": "owner/name", **dataset})]
    done = subprocess.run(command, env=hub.environment(home), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_the_training_files_of_a_data_set_are_fetched_once_and_read_in_order(hub, tmp_path):
    names, instructions = json.loads(read(hub, tmp_path))
    assert names == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert instructions == [row["instruction"] for row in ROWS]
    assert set(hub.asked) == {f"data/{name}" for name in names}
    hub.asked.clear()
    assert json.loads(read(hub, tmp_path)) == [names, instructions]
    assert not hub.asked
    assert json.loads(read(hub, tmp_path, files=["extra/*"])) == [["more.jsonl"], ["Add 0.", "bad"]]


def test_what_cannot_be_fetched_is_one_clear_error(hub, tmp_path):
    assert read(hub, tmp_path, repo_id="owner/none").startswith("repo_id = 'owner/none', revision = 'main': cannot")
    assert "has no files = ['*.csv']; it has: README.md, data/test-" in read(hub, tmp_path, files=["*.csv"])
    assert "cannot fetch it" in read(LocalHub("http://127.0.0.1:9"), tmp_path)
    assert not hub.asked


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.json", "b.jsonl", "train/c.parquet"], ["train/c.parquet"]),
        (["a.json", "b.jsonl", "test/c.parquet"], ["b.jsonl"]),
        (["dataset_infos.json", "sub/validation.json", "eval-1.json", "latest.json", "x.py"], ["latest.json"]),
        (["README.md", ".cache/x.json"], []),
    ],
)
def test_which_files_of_a_repository_are_read(names, chosen):
    assert choose_files(names, ()) == chosen
