"""Limits, refusals and departures, with an engine that goes on only when the test lets it."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from tests.serve.conftest import RunningServer, wait_until
from tests.serve.held_engine import HeldEngine

Start = Callable[..., tuple[HeldEngine, RunningServer]]


def asked(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "x", "max_tokens": 3, **changes}


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_text_is_streamed_as_it_comes(held_server: Start):
    engine, server = held_server()
    with httpx.stream("POST", f"{server.url}/v1/completions", json=asked(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        for letter in "abc":
            engine.release(1)
            assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["text"] == letter
        assert list(lines) == ["data: [DONE]"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_places(held_server: Start, stream: bool):
    engine, server = held_server()
    with httpx.Client(timeout=httpx.Timeout(20, read=1.5)) as client:
        if stream:
            with client.stream("POST", f"{server.url}/v1/completions", json=asked(n=3, stream=True)) as response:
                engine.release(1)
                next(response.iter_lines())
                assert len(engine.requests) == 3
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{server.url}/v1/completions", json=asked(n=3))
    wait_until(lambda: not engine.requests)
    wait_until(lambda: server.service.driver.pending == 0)


def test_above_the_queue_it_says_when_to_come_back(held_server: Start):
    engine, server = held_server(queue=2)  # and four slots
    thread, found = in_background(lambda: httpx.post(f"{server.url}/v1/completions", json=asked(n=5), timeout=30))
    wait_until(lambda: len(engine.requests) == 5)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none wanted", max_retries=0)
    with pytest.raises(openai.RateLimitError, match="5 answers are under way") as caught:
        client.completions.create(**asked(n=2))
    assert int(caught.value.response.headers["retry-after"]) > 0
    engine.release_all()
    thread.join()
    assert found[0].status_code == 200
    assert client.completions.create(**asked(n=2)).choices[0].text == "abc"


def test_a_request_has_its_time(held_server: Start):
    engine, server = held_server(seconds=0.3)
    response = httpx.post(f"{server.url}/v1/completions", json=asked())
    assert response.status_code == 504 and "0.3 s" in response.json()["error"]["message"]
    wait_until(lambda: not engine.requests)
    streamed = httpx.post(f"{server.url}/v1/completions", json=asked(stream=True)).text
    assert json.loads(streamed.removeprefix("data: "))["error"]["code"] == "timeout"


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_has_its_size(held_server: Start, in_chunks: bool):
    _, server = held_server(body_kib=1)
    body = json.dumps(asked(prompt="x" * 3000)).encode()
    content = (body[start : start + 100] for start in range(0, len(body), 100)) if in_chunks else body
    response = httpx.post(f"{server.url}/v1/completions", content=content)
    assert response.status_code == 413 and "1 KiB" in response.json()["error"]["message"]


def test_only_those_with_the_key_are_served(held_server: Start):
    engine, server = held_server(key="secret-word")
    engine.release_all()
    for key in ("wrong", "secret-wor", "secret-word2", "sécret"):
        headers = {"Authorization": f"Bearer {key}".encode()}
        for route in ("/v1/models", "/metrics"):
            assert httpx.get(server.url + route, headers=headers).status_code == 401
        response = httpx.post(f"{server.url}/v1/completions", json=asked(), headers=headers)
        assert response.status_code == 401 and "secret" not in response.text
    assert httpx.get(f"{server.url}/health").status_code == 200  # load balancers have no key
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret-word", max_retries=0)
    assert client.completions.create(**asked()).choices[0].text == "abc"


def test_what_is_under_way_is_told_when_the_engine_fails(held_server: Start):
    engine, server = held_server()
    thread, found = in_background(lambda: httpx.post(f"{server.url}/v1/completions", json=asked(), timeout=30))
    wait_until(lambda: len(engine.requests) == 1)
    engine.fault = MemoryError("no room")
    engine.release_all()
    thread.join()
    assert found[0].status_code == 500
    assert httpx.post(f"{server.url}/v1/completions", json=asked()).status_code == 500
    health = httpx.get(f"{server.url}/health")
    assert (health.status_code, health.json()) == (503, {"status": "engine failed"})


def test_nothing_new_is_taken_while_it_drains(held_server: Start):
    engine, server = held_server()
    thread, found = in_background(lambda: httpx.post(f"{server.url}/v1/completions", json=asked(), timeout=30))
    wait_until(lambda: len(engine.requests) == 1)
    server.service.is_draining = True
    assert httpx.post(f"{server.url}/v1/completions", json=asked()).status_code == 503
    assert httpx.get(f"{server.url}/health").json() == {"status": "draining"}
    engine.release_all()
    thread.join()
    assert found[0].json()["choices"][0]["text"] == "abc"


def test_what_prometheus_reads(held_server: Start):
    engine, server = held_server()
    engine.release_all()
    httpx.post(f"{server.url}/v1/completions", json=asked())
    httpx.post(f"{server.url}/v1/completions", json=asked(model="other"))
    httpx.get(f"{server.url}/nowhere/{time.time()}")
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'jaxwiz_http_requests_total{route="/v1/completions",status="200"} 1.0',
        'jaxwiz_http_requests_total{route="/v1/completions",status="404"} 1.0',
        'jaxwiz_http_requests_total{route="other",status="404"} 1.0',
        "jaxwiz_slots 4.0",
        "jaxwiz_first_token_seconds_count 1.0",
    ):
        assert line in text.splitlines(), line
