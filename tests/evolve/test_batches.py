"""The stage over the Batch API: few batches, and the rows of any other generator."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import BudgetConfig
from jaxwiz.llm.config import OpenAIBatchBackend
from jaxwiz.llm.protocol import GenerationRequest
from tests.evolve.fakes import FakeGenerator, config_for, moody
from tests.llm.batch_server import Fate, answer_line, batch_server

pytest.importorskip("openai")

ROWS = ("evolved.jsonl", "rejected.jsonl")


def complete(lines, number: int, looks: int) -> Fate:
    """Answers every line, the last one first."""
    output = b""
    for line in reversed(lines):
        body = line["body"]
        result = moody(GenerationRequest(body["messages"][0]["content"], body["seed"], 1, 0.0, 1.0))
        output += answer_line(line, result.text, result.finish_reason)
    return Fate(output=output)


def test_a_round_is_two_batches_and_the_rows_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = config_for(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "make_generator", lambda backend, work: FakeGenerator())
        wanted = stage.run(dataclasses.replace(config, out=tmp_path / "wanted"))
    with batch_server(complete) as server:
        backend = OpenAIBatchBackend(base_url=server.url, model="m", api_key_env="", poll_s=0.01)
        calls = dataclasses.replace(config.calls, together=True)
        stage.run(dataclasses.replace(config, generator=backend, calls=calls))
        assert len(server.batches) == 1 + 2 * config.rounds
        lines = [line for number in range(len(server.batches)) for line in server.lines_of(number)]
        assert len({str(line["body"]) for line in lines}) == len(lines)
    for name in ROWS:
        assert (config.out / name).read_bytes() == (wanted / name).read_bytes()


def test_a_budget_holds_between_batches(tmp_path: Path):
    with batch_server(complete) as server:
        backend = OpenAIBatchBackend(base_url=server.url, model="m", api_key_env="", poll_s=0.01)
        config = config_for(tmp_path, generator=backend, budget=BudgetConfig(max_tokens=400))
        with pytest.raises(stage.BudgetError, match=r"budget: \d+ tokens taken") as stopped:
            stage.run(config)
        assert int(str(stopped.value).split()[1]) <= 400
        before = len(server.batches)
        stage.run(dataclasses.replace(config, budget=BudgetConfig()))
        assert len(server.batches) > before > 0
