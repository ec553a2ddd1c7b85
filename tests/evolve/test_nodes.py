"""Calls on the nodes of a cluster: the bytes of a local run, and nothing asked twice."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.evolve import nodes
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.journal import Journal
from jaxwiz.evolve.nodes import NodesGenerator, answer_blocks, block_path
from jaxwiz.fanout import RayEngine
from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.protocol import GenerationError, GenerationRequest
from jaxwiz.llm.recording import RecordedAnswer, read_recording, request_key
from jaxwiz.stages import STAGES
from tests.evolve.fakes import FakeGenerator, config_for, moody, write_seeds
from tests.evolve.test_interrupted import keys_of
from tests.llm.scripted_server import ScriptedServer, chat, scripted_server
from tests.ray_cluster import TwoNodes

BACKEND = OpenAIBackend(base_url="http://localhost/v1", model="fake", api_key_env="", max_in_flight=2)
REQUESTS = [GenerationRequest(f"prompt {number}", number, 8, 0.0, 1.0) for number in range(6)]


def results_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in STAGES["evolve"].results}


def recorded(requests: list[GenerationRequest]) -> list[RecordedAnswer]:
    return [RecordedAnswer(request_key("fake", one), "fake", "node", moody(one)) for one in requests]


def test_a_block_goes_on_from_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = FakeGenerator()
    monkeypatch.setattr(nodes, "make_generator", lambda backend, work: generator)
    path = block_path(tmp_path, "fake", REQUESTS)
    with Journal(path) as journal:  # of a node that was lost in the middle of a write
        journal.append(recorded(REQUESTS[:4]))
    path.write_bytes(path.read_bytes()[:-9])
    ((number, results),) = answer_blocks(BACKEND, tmp_path, iter([(7, REQUESTS)]))
    assert (number, results) == (7, [moody(request) for request in REQUESTS])
    assert sorted(request.seed for request in generator.requests) == [3, 4, 5]


def test_what_nodes_have_left_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nodes, "make_generator", lambda backend, work: FakeGenerator())
    for start in (0, 3):
        with Journal(block_path(tmp_path / "work/blocks", "fake", REQUESTS[start : start + 3])) as journal:
            journal.append(recorded(REQUESTS[start : start + 3]))
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(recorded(REQUESTS[:1]))
        NodesGenerator(RayEngine(), BACKEND, tmp_path / "work", journal)
        assert len(journal) == 6
    assert len((tmp_path / "journal.jsonl").read_bytes().splitlines()) == 6
    assert not list((tmp_path / "work/blocks").iterdir())


def test_the_batch_api_is_for_one_process(tmp_path: Path):
    backend = OpenAIBatchBackend(base_url="http://localhost/v1", model="m", api_key_env="")
    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(GenerationError, match="set engine=local"):
        NodesGenerator(RayEngine(), backend, tmp_path, journal)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def script(prompt: str, before: int):
        result = moody(GenerationRequest(prompt, 0, 1, 0.0, 1.0))
        return chat(result.text, result.finish_reason)

    with scripted_server(script) as one:
        yield one


def config_at(server: ScriptedServer, folder: Path, name: str, **changes):
    backend = OpenAIBackend(base_url=server.url, model="m", api_key_env="", max_in_flight=2, transport="direct")
    path = write_seeds(folder / "seeds.jsonl", count=40)
    return config_for(folder, out=folder / name, seeds=path, generator=backend, rounds=2, **changes)


@pytest.mark.ray
def test_a_cluster_makes_the_same_bytes(server: ScriptedServer, tmp_path: Path, cluster_address: str):
    local = stage.run(config_at(server, tmp_path, "local"))
    before = len(server.bodies)
    engine = RayEngine(address=cluster_address)
    spread = stage.run(config_at(server, tmp_path, "spread", engine=engine))
    assert results_of(spread) == results_of(local)
    assert len(server.bodies) == 2 * before
    assert not list((spread / "generator/blocks").iterdir())


@pytest.mark.ray
def test_a_node_killed_half_way_is_replaced_and_its_journal_used(
    server: ScriptedServer, tmp_path: Path, breakable_cluster: TwoNodes, monkeypatch: pytest.MonkeyPatch
):
    local = stage.run(config_at(server, tmp_path, "local"))
    before = len(server.bodies)
    blocks = tmp_path / "spread/generator/blocks"
    original, durable, sent = nodes.fan_out, set(), []

    def killing(engine, work, items, **named):
        for result in original(engine, work, items, **named):
            if not durable and len(list(blocks.glob("*.jsonl"))) > 1:
                breakable_cluster.kill_second()
                for path in blocks.glob("*.jsonl"):
                    durable.update(answer.key for answer in read_recording(path).answers)
                sent.append(len(server.bodies))
            yield result

    monkeypatch.setattr(nodes, "fan_out", killing)
    spread = stage.run(config_at(server, tmp_path, "spread", engine=RayEngine(address=breakable_cluster.address)))
    assert results_of(spread) == results_of(local)
    assert durable and not durable & set(keys_of(server, sent[0]))
    again = sum(count - 1 for count in Counter(keys_of(server, before)).values())
    assert again <= 4, "only what was under way at the kill, or answered and not yet written, may be asked again"
