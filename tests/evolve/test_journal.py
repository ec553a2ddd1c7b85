from pathlib import Path

import pytest

from jaxwiz.evolve.journal import Call, Journal, JournaledGenerator
from jaxwiz.files import UserError
from jaxwiz.llm.protocol import GenerationError, GenerationRequest, GenerationResult
from tests.evolve.fakes import FakeGenerator


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"prompt {number}", number, 8, 0.0, 1.0) for number in range(count)]


def calls(requests: list[GenerationRequest]) -> list[Call]:
    return [Call("answer", 1, request) for request in requests]


def echo(request: GenerationRequest) -> GenerationResult:
    return GenerationResult(f"echo {request.prompt}", "stop", 2, 3)


def test_answers_keep_the_order_of_their_requests(tmp_path: Path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        answers = JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(5)), "test")
    assert [answer.text for answer in answers] == [f"echo prompt {number}" for number in range(5)]


def test_what_is_journaled_is_not_asked_again(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(3)), "test")
    generator = FakeGenerator(echo)
    with Journal(path) as journal:
        asker = JournaledGenerator(generator, journal)
        asker.ask(calls(requests(5)), "test")
    assert sorted(request.prompt for request in generator.requests) == ["prompt 3", "prompt 4"]
    assert asker.sent == 2
    assert asker.account.usage[1, "answer"].calls == 5
    assert asker.account.usage[1, "answer"].new_tokens == 15


def test_equal_requests_are_asked_once(tmp_path: Path):
    generator = FakeGenerator(echo)
    with Journal(tmp_path / "journal.jsonl") as journal:
        answers = JournaledGenerator(generator, journal).ask(calls(requests(2) * 2), "test")
    assert len(generator.requests) == 2
    assert answers[:2] == answers[2:]


def test_an_answer_of_another_model_is_not_used(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(1)), "test")
    other = FakeGenerator(echo)
    other.name = "other"
    with Journal(path) as journal:
        JournaledGenerator(other, journal).ask(calls(requests(1)), "test")
    assert len(other.requests) == 1


def test_what_was_answered_before_the_generator_failed_is_durable(tmp_path: Path):
    path = tmp_path / "journal.jsonl"

    def fails_at_zero(request: GenerationRequest) -> GenerationResult:
        if request.seed == 0:
            raise GenerationError("no credit")
        return echo(request)

    with Journal(path) as journal, pytest.raises(GenerationError):
        JournaledGenerator(FakeGenerator(fails_at_zero), journal).ask(calls(requests(5)), "test")
    with Journal(path) as journal:
        generator = FakeGenerator(echo)
        JournaledGenerator(generator, journal).ask(calls(requests(5)), "test")
    assert sorted(request.prompt for request in generator.requests) == ["prompt 0", "prompt 1"]


def test_a_torn_line_is_cut_away_before_the_next_is_written(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(2)), "test")
    whole = path.read_bytes()
    for torn in (whole[:-10], whole[: whole.index(b"\n") + 1] + b'{"key": "' + b"x" * 9999):
        path.write_bytes(torn)
        with Journal(path) as journal:
            JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(2)), "test")
        assert path.read_bytes() == whole


def test_a_damaged_journal_is_told_and_can_be_mended(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        JournaledGenerator(FakeGenerator(echo), journal).ask(calls(requests(2)), "test")
    whole = path.read_bytes()
    for damaged in (whole.replace(b'"key": "', b'"key": "z', 1), whole.replace(b"{", b"", 1)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"journal\.jsonl.*restore the"):
            Journal(path)
        path.write_bytes(whole)
        with Journal(path) as journal:
            assert len(journal) == 2
