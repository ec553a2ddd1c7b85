"""Runs that are killed or that meet a full disk: real processes, a real server, and its log as the proof."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.config import to_yaml
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.journal import Journal, JournalError
from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.protocol import GenerationRequest
from jaxwiz.llm.recording import read_recording, request_key
from jaxwiz.stages import STAGES
from tests.disks import limited_file_size, small_disk
from tests.evolve.fakes import FakeGenerator, config_for, moody, write_seeds
from tests.llm.scripted_server import ScriptedServer, chat, scripted_server

RESULTS = STAGES["evolve"].results
ROOT = Path(__file__).parents[2]


def results_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def request_of(body: dict[str, Any]) -> GenerationRequest:
    prompt = body["messages"][0]["content"]
    return GenerationRequest(prompt, body["seed"], body["max_tokens"], body["temperature"], body["top_p"])


def keys_of(server: ScriptedServer, since: int = 0) -> list[str]:
    return [request_key("m", request_of(body)) for body in server.bodies[since:]]


def settled(server: ScriptedServer) -> int:
    """Returns how many requests the server saw, once it has read what a killed process had sent."""
    count = -1
    while count != len(server.bodies):
        count = len(server.bodies)
        time.sleep(0.3)
    return count


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def script(prompt: str, before: int):
        result = moody(GenerationRequest(prompt, 0, 1, 0.0, 1.0))
        return chat(result.text, result.finish_reason)

    with scripted_server(script) as one:
        yield one


def config_with(server: ScriptedServer, folder: Path, name: str, seeds: int, in_flight: int) -> EvolveConfig:
    backend = OpenAIBackend(base_url=server.url, model="m", api_key_env="", max_in_flight=in_flight, transport="direct")
    path = write_seeds(folder / "seeds.jsonl", count=seeds)
    return config_for(folder, out=folder / name, seeds=path, generator=backend)


def run_killed(config: EvolveConfig, after: int, torn: int = 0) -> int:
    """Returns the exit code of a run in a process of its own; 0: it came to its end."""
    path = config.out.with_suffix(".yaml")
    path.write_text(to_yaml(config))
    command = [sys.executable, "-m", "tests.evolve.killed_run", str(path), str(after), str(torn)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def test_killed_after_each_write_in_turn_the_server_sees_every_request_once(server: ScriptedServer, tmp_path: Path):
    whole = results_of(stage.run(config_with(server, tmp_path, "whole", seeds=1, in_flight=4)))
    wanted, before = keys_of(server), len(server.bodies)
    config = config_with(server, tmp_path, "killed", seeds=1, in_flight=4)  # one item: a phase is one call
    kills = 0
    while run_killed(config, after=1):
        kills += 1
    assert kills == len(wanted) > 5
    assert Counter(keys_of(server, before)) == Counter(wanted)
    assert max(Counter(wanted).values()) == 1
    assert results_of(config.out) == whole


def test_what_is_journaled_is_never_sent_again_and_what_was_torn_off_is(server: ScriptedServer, tmp_path: Path):
    whole = results_of(stage.run(config_with(server, tmp_path, "whole", seeds=9, in_flight=8)))
    config = config_with(server, tmp_path, "killed", seeds=9, in_flight=8)
    journal = config.out / "journal.jsonl"
    for writes, torn in ((1, 1), (3, 40), (2, 0), (0, 0)):
        durable = {answer.key for answer in read_recording(journal).answers} if journal.exists() else set()
        before = settled(server)
        assert (run_killed(config, writes, torn) == 0) is (writes == 0)
        assert not durable & set(keys_of(server, before))
        assert max(Counter(keys_of(server, before)).values()) == 1
    assert results_of(config.out) == whole


def test_a_disk_that_is_full_half_way_leaves_a_whole_journal_and_a_run_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    generator = FakeGenerator()
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: generator)
    whole = results_of(stage.run(config_for(tmp_path, out=tmp_path / "whole")))
    size = (tmp_path / "whole/journal.jsonl").stat().st_size
    generator.requests.clear()
    config = config_for(tmp_path)
    lost: set[str] = set()
    for share in (0.2, 0.5, 0.9):
        asked = len(generator.keys)
        with limited_file_size(int(share * size)), pytest.raises(OSError, match=r"File too large: .*journal\.jsonl"):
            stage.run(config)
        recording = read_recording(config.out / "journal.jsonl")
        assert recording.whole_bytes == (config.out / "journal.jsonl").stat().st_size > 0
        lost |= set(generator.keys[asked:]) - {answer.key for answer in recording.answers}
        assert not list(config.out.glob("evolved*"))
    stage.run(config)
    assert results_of(config.out) == whole
    again = {key for key, count in Counter(generator.keys).items() if count > 1}
    assert again == lost  # what was answered, but could not be written


def test_a_full_disk_is_one_clear_error_and_room_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: FakeGenerator())
    with small_disk(tmp_path / "disk", "8k") as disk:
        with pytest.raises(OSError, match="No space left on device"):
            stage.run(config_for(tmp_path, out=disk / "out"))
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        stage.run(config_for(tmp_path, out=disk / "out"))
        whole = stage.run(config_for(tmp_path, out=tmp_path / "whole"))
        assert results_of(disk / "out") == results_of(whole)


def test_a_journal_has_one_writer(tmp_path: Path):
    with Journal(tmp_path / "journal.jsonl"), pytest.raises(JournalError, match="another process writes this journal"):
        Journal(tmp_path / "journal.jsonl")
