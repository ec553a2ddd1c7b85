"""The Batch API client against a server whose batches complete, expire, fail and lose answers; it waits in no time."""

from pathlib import Path

import pytest

pytest.importorskip("openai")

from jaxwiz.llm.config import OpenAIBatchBackend
from jaxwiz.llm.openai_batch import OpenAIBatchGenerator
from jaxwiz.llm.protocol import GenerationError, GenerationRequest, GenerationResult, QuotaError, StopAskingError
from tests.llm.batch_server import (
    BatchServer,
    Fate,
    answer_line,
    batch_server,
    expired_line,
    prompt_of,
    reply_line,
)

KEY = "sk-a-very-secret-key"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


class KilledError(Exception):
    """Stands for a kill: nothing after it happens."""


class Client:
    """A generator in a folder; `waits` are the seconds it would have slept."""

    def __init__(self, server: BatchServer, folder: Path, **config) -> None:
        self.waits: list[float] = []
        self.results: dict[int, GenerationResult] = {}
        backend = OpenAIBatchBackend(base_url=server.url, model="m", api_key_env="TEST_KEY", **config)
        self.generator = OpenAIBatchGenerator(backend, folder, self.waits.append)

    def ask(self, *prompts: str) -> list[str]:
        requests = [GenerationRequest(prompt, 11, 50, 0.5, 0.9) for prompt in prompts]

        def on_results(results):
            assert not self.results.keys() & results.keys()
            self.results.update(results)

        self.generator.generate_all(requests, on_results)
        assert sorted(self.results) == list(range(len(prompts)))
        return [self.results[index].text for index in range(len(prompts))]


def echo(lines, number, looks) -> Fate:
    """Completes at the third look; answers stand in reverse order."""
    if looks < 2:
        return Fate(("validating", "in_progress")[looks])
    return Fate(output=b"".join(answer_line(line, prompt_of(line).upper()) for line in reversed(lines)))


def test_a_batch_is_sent_looked_at_and_collected(tmp_path: Path):
    with batch_server(echo) as server:
        client = Client(server, tmp_path / "batches", poll_s=30)
        assert client.ask("a", 'b < "{}" ü\r\n', "c") == ["A", 'B < "{}" Ü\r\n', "C"]
    assert client.results[0] == GenerationResult("A", "stop", 7, 3)
    assert client.waits == [30, 30, 30]
    line = server.lines_of(0)[0]
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert line["body"] == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 11,
        "max_tokens": 50,
    }
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_equal_requests_are_asked_once(tmp_path: Path):
    with batch_server(echo) as server:
        assert Client(server, tmp_path).ask("a", "b", "a") == ["A", "B", "A"]
    assert server.prompts == [["a", "b"]]


def test_files_are_bounded_and_so_is_how_many_are_under_way(tmp_path: Path):
    open_at_once = []

    def fate(lines, number, looks):
        open_at_once.append(sum(batch["status"] != "completed" for batch in server.batches))
        return echo(lines, number, looks)

    with batch_server(fate) as server:
        texts = Client(server, tmp_path, requests_per_file=2, max_open_files=2).ask(*"abcdefg")
    assert texts == list("ABCDEFG")
    assert server.prompts == [["a", "b"], ["c", "d"], ["e", "f"], ["g"]]
    assert max(open_at_once) == 2


def test_an_expired_batch_gives_what_it_has_and_the_rest_goes_into_another(tmp_path: Path):
    def fate(lines, number, looks):
        if number > 0:
            return echo(lines, number, 2)
        errors = b"".join(expired_line(line) for line in lines[1:-1])  # of the last nobody says anything
        return Fate("expired", answer_line(lines[0], "first"), errors)

    with batch_server(fate) as server:
        client = Client(server, tmp_path)
        assert client.ask("a", "b", "c", "d") == ["first", "B", "C", "D"]
    assert server.prompts == [["a", "b", "c", "d"], ["b", "c", "d"]]
    assert client.generator.activity.retries == 3


def test_lines_that_are_torn_foreign_or_twice_there_do_no_harm(tmp_path: Path):
    def fate(lines, number, looks):
        if number > 0:
            return echo(lines, number, 2)
        first = answer_line(lines[0], "first")
        foreign = answer_line({"custom_id": "someone else's"}, "foreign")
        torn = answer_line(lines[1], "torn")[:-20]
        return Fate(output=b"[]\n\xff\n" + foreign + first + answer_line(lines[0], "again") + torn)

    with batch_server(fate) as server:
        assert Client(server, tmp_path).ask("a", "b") == ["first", "B"]
    assert server.prompts == [["a", "b"], ["b"]]


def test_a_line_means_what_the_same_reply_means_by_itself(tmp_path: Path):
    def fate(lines, number, looks):
        if number > 0:
            return echo(lines, number, 2)
        too_long = {"error": {"code": "context_length_exceeded", "message": "too long"}}
        replies = [(429, {}), (500, {}), (200, {"choices": []}), (400, too_long)]
        errors = [reply_line(line, *reply) for line, reply in zip(lines, replies, strict=True)]
        return Fate(errors=b"".join(errors))

    with batch_server(fate) as server:
        client = Client(server, tmp_path)
        assert client.ask("busy", "broken", "empty", "long") == ["BUSY", "BROKEN", "EMPTY", ""]
    assert client.results[3].finish_reason == "context_length"
    assert server.prompts[1] == ["busy", "broken", "empty"]


def test_a_line_about_the_account_ends_the_run_after_the_others_are_reported(tmp_path: Path):
    def fate(lines, number, looks):
        quota = reply_line(lines[0], 429, {"error": {"code": "insufficient_quota", "message": f"pay, {KEY}"}})
        return Fate(output=answer_line(lines[1], "kept"), errors=quota)

    with batch_server(fate) as server:
        client = Client(server, tmp_path)
        with pytest.raises(QuotaError, match="insufficient_quota") as caught:
            client.ask("a", "b")
    assert client.results[1].text == "kept"
    assert KEY not in str(caught.value)


def test_requests_that_never_get_an_answer_are_given_up(tmp_path: Path):
    with batch_server(lambda lines, number, looks: Fate("expired")) as server:
        with pytest.raises(GenerationError, match="gave up a request after 3 batches: the batch expired"):
            Client(server, tmp_path, max_retries=2).ask("a")
        assert len(server.batches) == 3
        server.fate = echo
        assert Client(server, tmp_path, max_retries=2).ask("a") == ["A"]  # run again: it is tried again


def test_a_batch_that_fails_is_told_with_its_reasons_and_another_is_made_once_that_is_corrected(tmp_path: Path):
    fault = {"code": "invalid_model", "message": f"no model m for {KEY}"}
    with batch_server(lambda lines, number, looks: Fate("failed", faults=[fault])) as server:
        with pytest.raises(GenerationError, match=r"invalid_model: no model m for \(key\)"):
            Client(server, tmp_path).ask("a")
        server.fate = echo
        assert Client(server, tmp_path).ask("a") == ["A"]
    assert server.prompts == [["a"], ["a"]]


def test_a_cancelled_batch_ends_the_run_and_the_next_one_uses_what_it_answered(tmp_path: Path):
    cancelled = lambda lines, number, looks: Fate("cancelled", answer_line(lines[0], "kept"))  # noqa: E731
    with batch_server(cancelled) as server:
        with pytest.raises(GenerationError, match="cancelled"):
            Client(server, tmp_path).ask("a", "b")
        server.fate = echo
        assert Client(server, tmp_path).ask("a", "b") == ["kept", "B"]
    assert server.prompts == [["a", "b"], ["b"]]


def test_a_batch_for_which_the_accounts_queue_is_full_waits_until_another_ends(tmp_path: Path):
    full = Fate("failed", faults=[{"code": "token_limit_exceeded", "message": "enqueued"}])

    def fate(lines, number, looks):
        if number == 0:
            return Fate("in_progress") if looks < 3 else echo(lines, number, 2)
        if number == 1:
            return full
        assert server.batches[0]["status"] == "completed"
        return echo(lines, number, 2)

    with batch_server(fate) as server:
        assert Client(server, tmp_path, requests_per_file=1).ask("a", "b") == ["A", "B"]
    assert server.prompts == [["a"], ["b"], ["b"]]


@pytest.mark.parametrize("call", ["POST /files", "POST /batches", "GET /batches", "GET /files"])
@pytest.mark.parametrize("kind", ["503", "lost"])
def test_every_request_is_tried_again_and_none_is_made_twice(call, kind, tmp_path: Path):
    with batch_server(echo) as server:
        if kind == "503":
            server.before = lambda made, seen: 503 if made == call and seen == 0 else None
        else:
            server.after = lambda made, seen: made == call and seen == 0
        client = Client(server, tmp_path, poll_s=1000)
        assert client.ask("a") == ["A"]
    assert server.prompts == [["a"]]  # one batch, also if the answer that told of it was lost
    assert len([wait for wait in client.waits if wait < 10]) == 1


@pytest.mark.parametrize("call", ["POST /files", "POST /batches", "GET /batches", "GET /files"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_is_killed_anywhere_goes_on_and_asks_nothing_twice(call, moment, tmp_path: Path):
    """The kill comes before the server acts, or after it acted and before its answer is noted."""
    kills = []

    def is_now(made: str, at: str) -> bool:
        if (made, at) != (call, moment) or kills:
            return False
        kills.append(made)
        return True

    def sleep(seconds: float) -> None:
        if kills:  # the wait before the next attempt
            raise KilledError

    with batch_server(echo) as server:
        server.before = lambda made, seen: 503 if is_now(made, "before") else None
        server.after = lambda made, seen: is_now(made, "after")
        client = Client(server, tmp_path)
        client.generator._sleep = sleep
        with pytest.raises(KilledError):
            client.ask("a", "b")
        assert Client(server, tmp_path).ask("a", "b") == ["A", "B"]
    assert server.prompts == [["a", "b"]]


def test_answers_that_were_reported_and_lost_by_the_caller_come_from_the_folder(tmp_path: Path):
    with batch_server(echo) as server:
        Client(server, tmp_path).ask("a", "b")
        before = list(server.calls)
        assert Client(server, tmp_path).ask("b") == ["B"]
    assert server.calls == before


def test_a_part_of_an_open_batch_is_waited_for_and_only_what_is_new_is_sent(tmp_path: Path):
    with batch_server(lambda lines, number, looks: Fate("in_progress")) as server:

        def kill(seconds):
            raise KilledError

        client = Client(server, tmp_path)
        client.generator._sleep = kill
        with pytest.raises(KilledError):
            client.ask("a", "b", "c")
        server.fate = echo
        assert Client(server, tmp_path).ask("c", "d") == ["C", "D"]
    assert server.prompts == [["a", "b", "c"], ["d"]]


def test_a_budget_that_is_spent_ends_the_run_and_open_batches_are_collected_later(tmp_path: Path):
    with batch_server(echo) as server:
        client = Client(server, tmp_path, requests_per_file=1, max_open_files=1)
        requests = [GenerationRequest(prompt, 11, 50, 0.5, 0.9) for prompt in "abc"]

        def spent(results):
            raise StopAskingError("spent")

        with pytest.raises(StopAskingError):
            client.generator.generate_all(requests, spent)
        assert server.prompts == [["a"]]
        assert Client(server, tmp_path).ask("a", "b", "c") == ["A", "B", "C"]
    assert [prompt for batch in server.prompts for prompt in batch] == ["a", "b", "c"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_fault_that_stays_ends_the_run_without_telling_the_key(status, tmp_path: Path):
    with batch_server(echo) as server:
        server.before = lambda call, seen: status
        client = Client(server, tmp_path)
        with pytest.raises(GenerationError, match=f"HTTP {status}") as caught:
            client.ask("a")
    assert KEY not in str(caught.value)
    assert client.waits == []
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_broken_folder_is_told(tmp_path: Path):
    with batch_server(echo) as server:
        Client(server, tmp_path).ask("a")
        (tmp_path / "0001" / "state.json").write_text("{")
        with pytest.raises(GenerationError, match="0001: not a batch's folder"):
            Client(server, tmp_path)


def test_batches_of_another_endpoint_are_not_ours(tmp_path: Path):
    with batch_server(echo) as first, batch_server(echo) as second:
        Client(first, tmp_path).ask("a")
        Client(second, tmp_path).ask("a")
    assert (first.prompts, second.prompts) == ([["a"]], [["a"]])
