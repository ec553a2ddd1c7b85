"""The evolver against the server: a whole run, and the same one whatever is under way at a time."""

import dataclasses
from pathlib import Path

from jaxwiz.evolve import run as stage
from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.stages import STAGES
from tests.evolve.fakes import config_for
from tests.serve.conftest import RunningServer


def run_over(server: RunningServer, folder: Path, max_in_flight: int) -> dict[str, bytes]:
    backend = OpenAIBackend(
        base_url=f"{server.url}/v1", model="tiny", api_key_env="", max_in_flight=max_in_flight, max_retries=0
    )
    folder.mkdir()
    config = config_for(folder)
    short = dataclasses.replace(config.calls.evolve, max_new_tokens=6)
    calls = dataclasses.replace(
        config.calls, evolve=short, answer=short, judge=dataclasses.replace(short, temperature=0)
    )
    out = stage.run(dataclasses.replace(config, generator=backend, calls=calls, rounds=1, items_per_round=6))
    return {name: (out / name).read_bytes() for name in STAGES["evolve"].results}


def test_a_run_over_the_server(server: RunningServer, tmp_path: Path):
    one = run_over(server, tmp_path / "one", 1)
    many = run_over(server, tmp_path / "many", 8)
    assert one == many
    assert b"calls:       10 (answer 4, evolve 6)" in one["summary.txt"]
