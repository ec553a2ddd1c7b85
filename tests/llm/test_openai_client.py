"""The endpoint client against a server that misbehaves in every way we know; waiting is recorded, not done."""

import email.utils
import threading
import time

import pytest

pytest.importorskip("openai")

from jaxwiz.llm.protocol import GenerationError, GenerationResult, QuotaError
from jaxwiz.llm.retry import spread_s
from tests.llm.client import KEY, Client, request
from tests.llm.scripted_server import RESET, Reply, chat, error, scripted_server
from tests.llm.virtual_clock import START_S


@pytest.fixture(params=["openai", "direct"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr(Client, "transport", request.param)
    return request.param


def test_a_request_says_what_was_asked_for_and_its_text_arrives_unchanged():
    prompt = 'a < b && "x" {0} %s `y` <<PARENT>>\r\n\tü 20. done'
    with scripted_server(lambda text, before: chat(text + " 20. more")) as server:
        result = Client(server).ask(request(prompt, stop=("END",)))[0]
    assert result == GenerationResult(prompt + " 20. more", "stop", 7, 3)
    body = server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": prompt}]
    assert (body["seed"], body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (
        11,
        50,
        0.5,
        0.9,
        ["END"],
    )
    assert server.keys == [f"Bearer {KEY}"]


def test_no_stop_text_is_sent_unless_asked_for():
    with scripted_server(lambda prompt, before: chat("x")) as server:
        Client(server).ask(request("a"))
    assert "stop" not in server.bodies[0]


def test_the_token_limit_can_have_its_newer_name():
    with scripted_server(lambda prompt, before: chat("x")) as server:
        Client(server, token_limit_field="max_completion_tokens").ask(request("a"))
    assert server.bodies[0]["max_completion_tokens"] == 50
    assert "max_tokens" not in server.bodies[0]


@pytest.mark.parametrize(
    "fault",
    [
        error(500),
        error(502),
        Reply(503, "<html>busy</html>"),
        error(408),
        error(409),
        error(429),
        RESET,
        Reply(200, "{not json"),
        Reply(200, {"choices": []}),
        Reply(200, {"hello": "world"}),
    ],
    ids=lambda fault: str(getattr(fault, "status", "reset")) + str(getattr(fault, "body", ""))[:12],
)
def test_a_fault_that_may_pass_is_tried_again(fault):
    with scripted_server(lambda prompt, before: fault if before < 2 else chat("fine")) as server:
        client = Client(server)
        assert client.ask(request("a"))[0].text == "fine"
    assert len(server.bodies) == 3
    first, second = client.waits
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_a_request_that_is_never_answered_times_out_and_is_tried_again():
    released = threading.Event()

    def script(prompt, before):
        if before == 0:
            released.wait(10)
        return chat("fine")

    with scripted_server(script) as server:
        assert Client(server, timeout_s=0.2).ask(request("a"))[0].text == "fine"
        released.set()
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after": email.utils.formatdate(START_S + 90, usegmt=True)}, 90.0),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6m0s"}, 360.0),
    ],
    ids=["seconds", "milliseconds", "date", "reset"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_server_decides_the_wait_if_it_says_one(status, headers, wait_s):
    with scripted_server(lambda prompt, before: error(status, **headers) if before == 0 else chat("x")) as server:
        client = Client(server)
        client.ask(request("a"))
    assert wait_s <= client.clock.running_s() <= spread_s(wait_s, 1.0)


@pytest.mark.parametrize(
    "fault",
    [
        error(400, "unknown_parameter"),
        error(401, "invalid_api_key", f"wrong key {KEY}"),
        error(403),
        error(404, "model_not_found"),
        error(429, "insufficient_quota", retry_after="1"),
        Reply(429, {"error": {"message": "pay", "type": "insufficient_quota", "code": "billing"}}),
        error(402),
    ],
    ids=["400", "401", "403", "404", "quota by code", "quota by type", "402"],
)
def test_a_fault_that_stays_stops_the_run_at_once_without_telling_the_key(fault):
    with scripted_server(lambda prompt, before: fault) as server:
        client = Client(server, max_in_flight=1)
        with pytest.raises(GenerationError) as caught:
            client.ask(request("a"), request("b"))
    assert len(server.bodies) == 1
    assert client.waits == []
    assert f"HTTP {fault.status}" in str(caught.value)
    assert isinstance(caught.value, QuotaError) is (fault.status in (402, 429))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "finish_reason"),
    [
        (error(400, "context_length_exceeded"), "context_length"),
        (error(400, None, "This model's maximum context length is 8 tokens"), "context_length"),
        (error(400, "content_filter"), "content_filter"),
    ],
)
def test_a_fault_of_one_prompt_is_that_prompts_result(fault, finish_reason):
    with scripted_server(lambda prompt, before: fault if prompt == "bad" else chat(prompt)) as server:
        results = Client(server, max_in_flight=1).ask(request("a"), request("bad"), request("c"))
    assert [results[index].finish_reason for index in range(3)] == ["stop", finish_reason, "stop"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("finish_reason", ["length", "content_filter", None])
def test_the_finish_reason_is_handed_on(finish_reason):
    with scripted_server(lambda prompt, before: chat("half", finish_reason)) as server:
        assert Client(server).ask(request("a"))[0].finish_reason == (finish_reason or "unknown")


def test_an_answer_without_text_or_with_broken_unicode_is_still_text():
    replies = {"none": chat(None), "broken": chat("a\ud800b")}
    with scripted_server(lambda prompt, before: replies[prompt]) as server:
        results = Client(server).ask(request("none"), request("broken"))
    assert (results[0].text, results[1].text) == ("", "a?b")


def test_retries_end_and_what_was_answered_is_kept():
    with scripted_server(lambda prompt, before: error(500) if prompt == "bad" else chat(prompt)) as server:
        client = Client(server, max_in_flight=1, max_retries=2)
        with pytest.raises(GenerationError, match="gave up after 3 attempts"):
            client.ask(request("a"), request("bad"), request("c"))
    assert {index: result.text for index, result in client.results.items()} == {0: "a"}
    assert server.prompts == ["a", "bad", "bad", "bad"]


def test_what_is_in_flight_when_the_run_stops_still_comes_home():
    slow_began, quota_sent = threading.Event(), threading.Event()

    def script(prompt, before):
        if prompt == "slow":
            slow_began.set()
            quota_sent.wait(10)
            time.sleep(0.5)  # the fault gets home first
            return chat("slow")
        slow_began.wait(10)
        quota_sent.set()
        return error(429, "insufficient_quota")

    with scripted_server(script) as server:
        client = Client(server, max_in_flight=2)
        with pytest.raises(GenerationError):
            client.ask(request("slow"), request("quota"), request("never sent"))
    assert client.results[0].text == "slow"
    assert "never sent" not in server.prompts


def test_as_many_are_in_flight_as_allowed():
    barrier = threading.Barrier(5)

    def script(prompt, before):
        barrier.wait(10)  # passes only when five are there at once
        return chat(prompt)

    with scripted_server(script) as server:
        results = Client(server, max_in_flight=5).ask(*(request(str(number)) for number in range(20)))
    assert server.most_at_once == 5
    assert [results[index].text for index in range(20)] == [str(number) for number in range(20)]


def test_an_error_of_the_callback_stops_generation():
    class FullDiskError(Exception):
        pass

    def on_results(results):
        raise FullDiskError

    with scripted_server(lambda prompt, before: chat(prompt)) as server:
        generator = Client(server, max_in_flight=1).generator
        with pytest.raises(FullDiskError):
            generator.generate_all([request(str(number)) for number in range(100)], on_results)
    assert len(server.bodies) < 100
