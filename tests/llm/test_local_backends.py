"""Recording, replay and the local engine's adapter."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.llm.backends import make_generator
from jaxwiz.llm.config import JaxBackend, ReplayBackend
from jaxwiz.llm.jax_engine import JaxGenerator
from jaxwiz.llm.protocol import GenerationError, GenerationRequest, GenerationResult
from jaxwiz.llm.recording import RecordedAnswer, RecordingError, read_recording, request_key

REQUEST = GenerationRequest("prompt", 1, 16, 0.5, 0.9)
RESULT = GenerationResult("text\nüé\u2028 ends", "stop", 3, 4)


def answer(request: GenerationRequest, text: str, model: str = "m") -> RecordedAnswer:
    return RecordedAnswer(request_key(model, request), model, "answer", GenerationResult(text, "stop", 1, 1))


def collect(generator, requests) -> dict[int, GenerationResult]:
    results: dict[int, GenerationResult] = {}
    generator.generate_all(requests, results.update)
    return results


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "other"},
        {"seed": 2},
        {"max_new_tokens": 17},
        {"temperature": 0.6},
        {"top_p": 1.0},
        {"stop": ("x",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_decides_an_answer_is_in_its_key(change):
    assert request_key("m", dataclasses.replace(REQUEST, **change)) != request_key("m", REQUEST)
    assert request_key("n", REQUEST) != request_key("m", REQUEST)


def test_a_key_is_the_same_for_every_version():
    """Or else journals written before would be asked again."""
    request = GenerationRequest("Sort \u00e9\ud800\n", 7, 100, 0.5, 1.0, ("x",))
    assert request_key("m", request) == "63878f9dcd348cb111f0cfa347fd4e3e172c7276bb5bc6df49a26a1e7f051402"


def test_a_recorded_answer_survives_the_file(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    recorded = RecordedAnswer("k", "m", "evolve", RESULT)
    path.write_bytes(recorded.to_line() * 2)
    assert read_recording(path).answers == [recorded, recorded]


def test_a_torn_last_line_is_left_out_and_a_broken_whole_line_is_an_error(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    line = RecordedAnswer("k", "m", "evolve", RESULT).to_line()
    path.write_bytes(line + line[:-1])
    recording = read_recording(path)
    assert (len(recording.answers), recording.whole_bytes) == (1, len(line))
    path.write_bytes(line + b'{"key": 1}\n' + line)
    with pytest.raises(RecordingError, match=r"journal\.jsonl:2"):
        read_recording(path)


def test_replay_answers_what_was_recorded_and_nothing_else(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    other = dataclasses.replace(REQUEST, seed=5)
    path.write_bytes(answer(REQUEST, "one").to_line() + answer(other, "two").to_line())
    generator = make_generator(ReplayBackend(path=path), tmp_path)
    assert generator.name == "m"
    assert {index: result.text for index, result in collect(generator, [other, REQUEST]).items()} == {
        0: "two",
        1: "one",
    }
    with pytest.raises(GenerationError, match=r"1 of 2 requests were not recorded.*seed 9"):
        collect(generator, [REQUEST, dataclasses.replace(REQUEST, seed=9)])


@pytest.mark.parametrize("models", [(), ("m", "n")])
def test_replay_wants_the_answers_of_one_model(models, tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(answer(REQUEST, "x", model).to_line() for model in models))
    with pytest.raises(GenerationError, match="one model"):
        make_generator(ReplayBackend(path=path), tmp_path)


class EchoSampler:
    """Answers with the prompt, the last request first, and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def generate_all(self, requests, on_results):
        self.asked.append([request.prompt for request in requests])
        for index in reversed(range(len(requests))):
            on_results({index: GenerationResult(requests[index].prompt, "stop", 1, 1)})


def requests(count: int) -> list[GenerationRequest]:
    return [dataclasses.replace(REQUEST, prompt=str(number)) for number in range(count)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "model.json").write_text("{}")
    return tmp_path


def test_the_local_engine_gets_all_requests_and_reports_as_they_come(checkpoint: Path):
    sampler = EchoSampler()
    generator = JaxGenerator(JaxBackend(checkpoint=checkpoint, batch_size=3), sampler)
    seen: list[int] = []
    generator.generate_all(requests(4), lambda results: seen.extend(results))
    assert (sampler.asked, seen) == ([["0", "1", "2", "3"]], [3, 2, 1, 0])
    generator.generate_all([], seen.append)
    assert len(sampler.asked) == 1


def test_the_local_engines_name_changes_with_model_template_and_shapes(checkpoint: Path):
    changes = ({}, {"template": "alpaca"}, {"batch_size": 2}, {"max_prompt_tokens": 9})
    names = [JaxGenerator(JaxBackend(checkpoint=checkpoint, **change)).name for change in changes]
    (checkpoint / "model.json").write_text('{"hidden_size": 2}')
    names.append(JaxGenerator(JaxBackend(checkpoint=checkpoint)).name)
    assert len(set(names)) == 5


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path: Path):
    with pytest.raises(GenerationError, match=r"generator\.checkpoint.*jaxwiz convert"):
        make_generator(JaxBackend(checkpoint=tmp_path), tmp_path)
