"""`jaxwiz serve` as its users start it: a process, signals, and faults of what it was told."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jaxwiz.cli import main
from jaxwiz.files import UserError
from jaxwiz.serve.config import ServeConfig
from jaxwiz.serve.run import read_server_key
from tests.serve.conftest import wait_until


@pytest.fixture(scope="module")
def process(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """The server's process, where it listens, and its log."""
    log = tmp_path_factory.mktemp("served") / "log.txt"
    command = [sys.executable, "-m", "jaxwiz.cli", "serve", str(checkpoint), "port=0", "slots=2", "template=chatml"]
    with log.open("w") as file:
        started = subprocess.Popen([*command, "cache_tokens=512"], stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "/v1" in log.read_text() or started.poll() is not None, 120)
        found = re.search(r"http://[\d.]+:\d+", log.read_text())
        assert found, log.read_text()
        yield started, found[0], log
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


def test_sigterm_lets_answers_end_and_takes_no_more(process: tuple[subprocess.Popen, str, Path]):
    server, url, log = process
    compiled = httpx.get(f"{url}/metrics").text
    assert "jaxwiz_slots 2.0" in compiled.splitlines()
    body = {"model": "tiny-model0", "prompt": "def add", "max_tokens": 300, "temperature": 0, "stream": True}
    name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    with httpx.stream("POST", f"{url}/v1/completions", json={**body, "model": name}, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        os.kill(server.pid, signal.SIGTERM)
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in ("length", "stop")
    assert server.wait(timeout=60) == 0
    assert "draining" in log.read_text() and "Traceback" not in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_port_in_use_is_said_before_anything_is_loaded(checkpoint: Path, capsys: pytest.CaptureFixture):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(checkpoint.parent / "none"), f"port={port}"]) == 2
    assert f"port = {port}: cannot listen there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["host=0.0.0.0"], "set api_key_env or api_key_file, or say open=true"),
        (["slots=0"], "slots = 0"),
        (["limits.body_kib=0", "port=99999"], "2 fault(s)"),
        (["colour=red"], "unknown key"),
        (["api_key_env=JAXWIZ_TEST_NO_SUCH_KEY"], "holds no key"),
        (["api_key_file=no/such/file"], "cannot be read"),
        (["template=no-such-template"], "no-such-template"),
    ],
)
def test_faults_of_the_settings(checkpoint: Path, settings: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(["serve", str(checkpoint), *settings]) == 2
    assert message in capsys.readouterr().err


def test_no_checkpoint_is_said(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["serve", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_a_key_is_read_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVER_KEY", "from-environment")
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "two").write_text("two words")
    config = ServeConfig(checkpoint=tmp_path, api_key_env="SERVER_KEY")
    assert read_server_key(config).reveal() == "from-environment"
    both = ServeConfig(checkpoint=tmp_path, api_key_env="SERVER_KEY", api_key_file=str(tmp_path / "key"))
    assert read_server_key(both).reveal() == "from-file"
    assert "from" not in repr(read_server_key(both))
    with pytest.raises(UserError) as caught:
        read_server_key(ServeConfig(checkpoint=tmp_path, api_key_file=str(tmp_path / "two")))
    assert "words" not in str(caught.value)
