"""Whatever is sent, the answer is a 4xx that says why, and the server goes on."""

import json
import random
import socket
from typing import Any

import httpx
import pytest

from tests.serve.conftest import RunningServer

GOOD = {"model": "tiny", "prompt": "x", "max_tokens": 1, "temperature": 0}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
DEEP = "[" * 100_000
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 10**400, -(2**63), "", "x", "\ud800", "\x00", [], [[]], [None], [1, "x"], {},
    {"a": {}}, {"\ud800": 1}, [[[[1]]]], "y" * 100_000, list(range(2000)), {str(n): n for n in range(2000)},
)  # fmt: skip
BODIES = [
    b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"\x00", DEEP.encode(), b'{"model":' + DEEP.encode(),
    b'{"model": "tiny", "prompt": NaN}', b'{"model": "tiny", "prompt": Infinity}', b"{'model': 'tiny'}",
    b'{"model": "tiny", "prompt": "\\ud800", "max_tokens": 1}', json.dumps(GOOD).encode("utf-16"),
    b'{"model": "tiny", "prompt": ' + b"9" * 5000 + b"}", json.dumps({**GOOD, "max_tokens": 10**30}).encode(),
]  # fmt: skip


def post(server: RunningServer, route: str, content: bytes) -> httpx.Response:
    return httpx.post(server.url + route, content=content, timeout=60)


def assert_refused(response: httpx.Response) -> None:
    assert 400 <= response.status_code < 500, response.text[:500]
    error = response.json()["error"]
    assert error["message"] and len(error["message"]) < 1000 and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_what_is_no_request_is_refused(server: RunningServer, route: str):
    for body in BODIES:
        assert_refused(post(server, route, body))
    assert post(server, "/v1/completions", json.dumps(GOOD).encode()).status_code == 200


@pytest.mark.parametrize(("route", "good"), [("/v1/completions", GOOD), ("/v1/chat/completions", CHAT)])
def test_values_of_any_kind_in_any_field(server: RunningServer, route: str, good: dict[str, Any]):
    fields = (
        *(
            "model",
            "prompt",
            "messages",
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
        ),
        *("n", "stop", "seed", "logit_bias", "stream", "stream_options", "logprobs", "top_logprobs", "echo", "best_of"),
        *("repetition_penalty", "presence_penalty", "frequency_penalty", "user", "response_format", "tools", "\ud800"),
    )
    cases = [{**good, field: value} for field in fields for value in VALUES]
    if "messages" in good:
        cases += [{**good, "messages": [{**good["messages"][0], field: value}]} for field in ("role", "content", "name")
                  for value in VALUES]  # fmt: skip
    codes = set()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for case in cases:
            response = client.post(route, content=json.dumps(case).encode())
            codes.add(response.status_code)
            if response.status_code != 200:
                assert_refused(response)
        assert client.post(route, json=good).status_code == 200
    assert codes == {200, 400, 404}


def test_damaged_bodies(server: RunningServer):
    draw = random.Random(0)
    whole = json.dumps({**GOOD, "stop": ["a", "b"], "logit_bias": {"5": 1.0}, "stream": False}).encode()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(damaged))
                damaged[place : place + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
            response = client.post("/v1/completions", content=bytes(damaged))
            if response.status_code != 200:
                assert_refused(response)


def test_other_routes_and_methods(server: RunningServer):
    for method, route in (("GET", "/v1/completions"), ("POST", "/health"), ("GET", "/"), ("GET", "/v1/%00"),
                          ("DELETE", "/v1/models"), ("GET", "/v1/models/" + "x" * 3000)):  # fmt: skip
        assert_refused(httpx.request(method, server.url + route))


def test_what_is_not_even_http(server: RunningServer):
    host, port = server.url.removeprefix("http://").split(":")
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"G" * 200_000,
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100)
            except OSError:
                continue  # it hung up on us, as it may
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
