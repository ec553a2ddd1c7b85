"""Whole runs of the endpoint client: how they end, keep to limits, share a pause, and keep the key to themselves."""

import asyncio
import logging
import threading
import time

import psutil
import pytest

pytest.importorskip("openai")

from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.openai_client import OpenAIGenerator
from jaxwiz.llm.protocol import GenerationError, StopAskingError
from jaxwiz.llm.recording import RecordedAnswer
from tests.llm.client import KEY, Client, request
from tests.llm.scripted_server import Reply, chat, error, scripted_server


@pytest.fixture(params=["openai", "direct"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(Client, "transport", request.param)
    return request.param


def test_a_request_that_waits_for_its_retry_is_not_sent_after_the_run_has_stopped_nor_holds_it_up():
    first_failed = threading.Event()

    def script(prompt, before):
        if prompt == "busy":
            first_failed.set()
            return error(503, retry_after="3600")
        first_failed.wait(10)
        return error(401)

    with scripted_server(script) as server:
        client = Client(server, max_in_flight=2)
        client.clock.sleep = asyncio.sleep  # a real hour
        with pytest.raises(GenerationError, match="401"):
            client.ask(request("busy"), request("wrong key"))
    assert server.prompts.count("busy") == 1


def test_a_budget_that_is_spent_sends_nothing_more_and_what_is_under_way_is_reported():
    both_there, spent = threading.Barrier(2), threading.Event()

    def script(prompt, before):
        if prompt in ("slow", "quick"):
            both_there.wait(10)
        if prompt != "quick":
            spent.wait(10)
        return chat(prompt)

    reports = []

    def on_results(results):
        reports.append([result.text for result in results.values()])
        spent.set()
        raise StopAskingError(f"spent after {len(reports)} reports")

    with scripted_server(script) as server:
        generator = Client(server, max_in_flight=2).generator
        prompts = ["slow", "quick", "never sent", "never sent either"]
        with pytest.raises(StopAskingError, match="after 1 reports"):
            generator.generate_all([request(prompt) for prompt in prompts], on_results)
    assert reports[0] == ["quick"]
    assert "slow" in [text for report in reports for text in report]
    assert len(server.bodies) <= 3  # the one that "quick" made room for may have gone before its report


def test_it_works_where_a_loop_runs_already_as_in_a_notebook():
    async def cell():
        return Client(server).ask(request("a"))[0].text

    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        assert asyncio.run(cell()) == "a"


def test_results_are_reported_in_the_callers_thread():
    threads = set()
    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        Client(server).generator.generate_all([request("a")], lambda results: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_requests_are_found_in_the_callers_thread_and_not_far_ahead_of_their_answers():
    found: list[threading.Thread] = []
    answered = 0
    ahead: list[int] = []

    def requests():
        for number in range(50):
            found.append(threading.current_thread())
            yield request(str(number))

    def on_results(results):
        nonlocal answered
        ahead.append(len(found) - answered)
        answered += len(results)

    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        Client(server, max_in_flight=3).generator.generate_all(requests(), on_results)
    assert set(found) == {threading.current_thread()}
    assert (answered, sorted(server.prompts)) == (50, sorted(map(str, range(50))))
    assert max(ahead) == 6


def test_an_error_while_requests_are_found_ends_the_calls():
    def requests():
        yield from map(request, "abcd")
        raise OSError("the disk is gone")

    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        client = Client(server, max_in_flight=1)
        with pytest.raises(OSError, match="gone"):
            client.generator.generate_all(requests(), lambda results: None)
        assert client.ask(request("e"))[0].text == "e"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}])
def test_tokens_are_estimated_where_the_server_does_not_count_them(usage):
    reply = chat("12345678")
    reply.body["usage"] = usage
    with scripted_server(lambda prompt, before: reply) as server:
        result = Client(server).ask(request("123456789"))[0]
    assert (result.prompt_tokens, result.new_tokens) == (3, 2)


def test_the_activity_ends_at_rest_and_counts_retries():
    with scripted_server(lambda prompt, before: error(500) if before == 0 else chat("x")) as server:
        client = Client(server)
        client.ask(request("a"), request("b"))
    activity = client.generator.activity
    assert (activity.in_flight, activity.waiting, activity.retries) == (0, 0, 2)


def test_no_minute_sees_more_requests_or_tokens_than_allowed_whatever_is_in_flight():
    sent_s: list[float] = []

    def script(prompt, before):
        sent_s.append(client.clock.running_s())
        return chat("x")

    with scripted_server(script) as server:
        client = Client(server, max_in_flight=20, requests_per_minute=60, tokens_per_minute=100_000)
        client.ask(*(request(str(number)) for number in range(150)))
        assert sent_s[-1] == pytest.approx(149, abs=2)  # one a second
        began_s = client.clock.running_s()
        sent_s.clear()
        client = Client(server, max_in_flight=20, tokens_per_minute=51 * 10)
        client.ask(*(request(str(number), max_new_tokens=50) for number in range(60)))
    # Admitted with 51 tokens each, 10 once answered: the pace comes near the true need, and never above the limit.
    assert began_s > 0
    in_a_minute = max(sum(start <= moment < start + 60 for moment in sent_s) for start in sent_s)
    assert 10 < in_a_minute <= 51 + 1


def test_a_rate_limit_that_one_request_meets_holds_all_back():
    sent_s: list[tuple[str, float]] = []

    def script(prompt, before):
        sent_s.append((prompt, client.clock.running_s()))
        return error(429, "rate_limit_exceeded", retry_after="100") if len(sent_s) == 1 else chat(prompt)

    with scripted_server(script) as server:
        client = Client(server, max_in_flight=1)
        client.ask(*(request(str(number)) for number in range(3)))
        assert [prompt for prompt, _ in sent_s] == ["0", "0", "1", "2"]
        sent_s.clear()
        client = Client(server, max_in_flight=3)
        client.ask(*(request(str(number)) for number in range(10, 22)))
    early = [prompt for prompt, moment_s in sent_s if moment_s < 100]
    assert len(early) <= 3 + 2  # those in flight with the first, and what they made room for before its reply came
    assert len(sent_s) == 13


def test_more_in_flight_than_the_system_allows_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (100, 1024))
    backend = OpenAIBackend(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="", max_in_flight=5000)
    with pytest.raises(GenerationError, match="max_in_flight = 5000: this system lets a process open 1024 files"):
        OpenAIGenerator(backend).generate_all([request("a")], lambda results: None)


def test_the_key_is_in_nothing_that_is_written(tmp_path, caplog, capsys, transport):
    """Every fault quotes the key back; logs of all levels, messages, reprs and recorded lines are searched for it."""
    quoting = f"bad key {KEY}, Bearer {KEY}"
    faults = [error(500, message=quoting), error(429, message=quoting, retry_after="1"), Reply(200, quoting)] * 2
    caplog.set_level(logging.DEBUG)
    written = []

    def record(results):
        written.extend(RecordedAnswer("k", "m", "answer", result).to_line().decode() for result in results.values())

    def script(prompt, before):
        return error(401, quoting, quoting) if prompt == "last" else [*faults, chat("fine")][before]

    (tmp_path / "key").write_text(KEY)
    with scripted_server(script) as server:
        client = Client(server, max_in_flight=1, api_key_env="", api_key_file=str(tmp_path / "key"))
        with pytest.raises(GenerationError) as caught:
            client.generator.generate_all([request("a"), request("last")], record)
    assert server.keys[0] == f"Bearer {KEY}"
    assert len(server.bodies) == len(faults) + 2
    fault: BaseException | None = caught.value
    while fault is not None:
        written += [str(fault), repr(fault)]
        fault = fault.__cause__ or fault.__context__
    written += [record.getMessage() for record in caplog.records] + [str(record.__dict__) for record in caplog.records]
    written += [*capsys.readouterr(), caplog.text, repr(client.generator), repr(vars(client.generator))]
    assert "(key)" in "".join(written)  # the server's message is shown, without it
    assert [text for text in written if KEY in text] == []


def test_no_socket_stays_open():
    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        client = Client(server, max_in_flight=10)
        client.ask(request("first"))  # what is loaded and opened once
        client.results.clear()
        before = psutil.Process().num_fds()
        client.ask(*(request(str(number)) for number in range(30)))
        deadline = time.monotonic() + 5
        while psutil.Process().num_fds() > before and time.monotonic() < deadline:
            time.sleep(0.01)  # the server's own ends close a moment later
        assert psutil.Process().num_fds() <= before
