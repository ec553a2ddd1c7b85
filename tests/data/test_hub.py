"""Data sets on a hub: fetched from a server on this machine that speaks the hub's protocol, and its faults."""

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pyarrow
import pyarrow.parquet
import pytest

from jaxwiz.data.hub import choose_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
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


class Hub(http.server.BaseHTTPRequestHandler):
    """The two requests that matter: what a data set holds, and a file of it."""

    asked: list[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        prefix = f"/datasets/owner/name/resolve/{COMMIT}/"
        if path.startswith("/api/datasets/owner/name"):
            siblings = [{"rfilename": name} for name in FILES]
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()]
            info = {"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self._send(200, json.dumps(tree if "/tree/" in path else info).encode(), body)
        elif path.startswith(prefix) and path.removeprefix(prefix) in FILES:
            name = path.removeprefix(prefix)
            self.asked.append(name)
            self._send(200, FILES[name], body)
        else:
            self._send(404, b"{}", body)

    def _send(self, status: int, data: bytes, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:40]}"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with one data set, owner/name, and the files that were asked of it."""
    handler = type("Handler", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


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


def read(endpoint: str, home: object, **dataset: object) -> str:
    """What a process prints that reads a data set: huggingface_hub takes its settings when it is imported."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"), "")
    environment = {**os.environ, **proxies, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    dataset = {"repo_id": "owner/name", **dataset}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(dataset)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_the_training_files_of_a_data_set_are_fetched_once_and_read_in_order(hub, tmp_path):
    endpoint, asked = hub
    names, instructions = json.loads(read(endpoint, tmp_path))
    assert names == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert instructions == [row["instruction"] for row in ROWS]
    assert set(asked) == {f"data/{name}" for name in names}
    asked.clear()
    assert json.loads(read(endpoint, tmp_path)) == [names, instructions]
    assert not asked
    assert json.loads(read(endpoint, tmp_path, files=["extra/*"])) == [["more.jsonl"], ["Add 0.", "bad"]]


def test_what_cannot_be_fetched_is_one_clear_error(hub, tmp_path):
    endpoint, asked = hub
    assert read(endpoint, tmp_path, repo_id="owner/none").startswith(
        "repo_id = 'owner/none', revision = 'main': cannot"
    )
    assert "has no files = ['*.csv']; it has: README.md, data/test-" in read(endpoint, tmp_path, files=["*.csv"])
    assert "cannot fetch it" in read("http://127.0.0.1:9", tmp_path)
    assert not asked


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
