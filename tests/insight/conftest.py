"""A finished evolve run to look at: hand-made answers, scores of difficulty, and a seed that wants to be markup."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import CallConfig, CallsConfig, EvolveConfig, PricesConfig
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.records import Seed, write_records
from tests.evolve.fakes import FakeGenerator, config_for

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\ud800"
THEMES = ("Sort a list of dates without recursion.", "Parse a log file into a table.", "Draw a tree of folders.")

MakeRun = Callable[..., EvolveConfig]


def reply(request: GenerationRequest) -> GenerationResult:
    """Evolves by adding words, finds three in ten equal, and scores what is longer as harder."""
    prompt = request.prompt
    if "Reply with your verdict" in prompt:
        text = "Equal" if request.seed % 10 < 3 else "Not Equal"
    elif "Reply with the score alone" in prompt:
        text = str(3 + 2 * prompt.count("Also explain step"))
    elif request.max_new_tokens == 64:
        parent = prompt.split("\n")
        text = next(line for line in parent if line.startswith("Task")) + f" Also explain step {request.seed % 97}."
    else:
        text = "The answer, word for word. " * (prompt.count("Also explain") + 1)
        text += HOSTILE if "Task x" in prompt else ""
    return GenerationResult(text, "stop", len(prompt) // 4, len(text) // 4)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A function (seeds=24, **changes) -> config of a run that is finished."""

    def make(seeds: int = 24, **changes) -> EvolveConfig:
        folder = tmp_path_factory.mktemp("evolved")
        rows = [Seed(id=f"s{n:02}", instruction=f"Task {n}. {THEMES[n % 3]}", output="known") for n in range(seeds)]
        write_records(folder / "seeds.jsonl", [*rows, Seed(id="<b>x", instruction=f"Task x. {HOSTILE[:-1]}")])
        settings = {
            "rounds": 2,
            "prices": PricesConfig(input_per_million=2.0, output_per_million=4.0),
            "calls": CallsConfig(
                evolve=CallConfig(max_new_tokens=64),
                answer=CallConfig(max_new_tokens=65),
                difficulty=CallConfig(max_new_tokens=8, temperature=0.0),
            ),
        }
        config = config_for(folder, **{**settings, **changes})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "make_generator", lambda backend, work: FakeGenerator(reply))
            stage.run(config)
        return config

    return make


@pytest.fixture(scope="session")
def evolved(make_run: MakeRun) -> Path:
    """The folder of a finished run of 25 seeds and two rounds."""
    return make_run().out
