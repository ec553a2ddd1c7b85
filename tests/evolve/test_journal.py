from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import BudgetConfig
from jaxwiz.evolve.journal import Call, Journal, JournaledGenerator
from jaxwiz.files import UserError
from jaxwiz.llm.protocol import Activity, GenerationError, GenerationRequest, GenerationResult, OnResults
from jaxwiz.llm.recording import request_key
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


class OneByOne:
    """Goes through its requests, and notes how many keys were made before each answer."""

    name = "one by one"

    def __init__(self, keys: list[str]) -> None:
        self.activity = Activity()
        self.keys, self.keys_before = keys, []

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        for index, request in enumerate(requests):
            self.keys_before.append(len(self.keys))
            on_results({index: echo(request)})


@pytest.mark.parametrize(
    ("account", "known", "keys_before"),
    [
        pytest.param(Account(), 0, [1, 2, 4], id="found as they are sent; the third is the second once more"),
        pytest.param(Account(budget=BudgetConfig(max_tokens=10_000)), 0, [4, 4, 4], id="a budget counts them first"),
        pytest.param(Account(), 1, [4, 4], id="what a journal knows comes first"),
    ],
)
def test_a_request_is_sent_before_the_keys_of_all_others_are_made(
    account: Account, known: int, keys_before: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keys: list[str] = []
    generator = OneByOne(keys)
    first, second, third = requests(3)
    with Journal(tmp_path / "journal.jsonl") as journal:
        JournaledGenerator(generator, journal).ask(calls(requests(known)), "an earlier run")
        generator.keys_before.clear()
        monkeypatch.setattr("jaxwiz.evolve.journal.request_key", lambda *call: keys.append("") or request_key(*call))
        asker = JournaledGenerator(generator, journal, account)
        answers = asker.ask(calls([first, second, second, third]), "test")
    assert generator.keys_before == keys_before
    assert [answer.text[-1] for answer in answers] == ["0", "1", "1", "2"]
    assert (asker.sent, account.usage[1, "answer"].calls) == (len(keys_before), 3)


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
