"""The small HTTP client: replies in every framing and in pieces of any size, connections used again or not, TLS."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jaxwiz.llm import http
from jaxwiz.llm.http import HttpClient, HttpFault, HttpReply, ReplyReader

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;name=x\r\nlo\r\n0\r\n\r\n"
WITH_TRAILER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-end: 1\r\n\r\n"
AFTER_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (PLAIN, True),
        (CHUNKED, True),
        (WITH_TRAILER, True),
        (AFTER_INTERIM, True),
        (CLOSING, False),
        (OLD, False),
        (PLAIN.replace(b" OK", b""), True),
    ],
    ids=["length", "chunked", "trailer", "interim", "closing", "HTTP/1.0", "no reason phrase"],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_reply_is_read_from_pieces_of_any_size(data, reusable, piece):
    reader = ReplyReader()
    replies = [reader.feed(data[start : start + piece]) for start in range(0, len(data), piece)]
    assert replies[:-1] == [None] * (len(replies) - 1)
    assert (replies[-1].status, replies[-1].body) == (200, b"hello")
    assert reader.reusable is reusable


def test_names_of_headers_are_lower_case_and_values_trimmed():
    reply = ReplyReader().feed(b"HTTP/1.1 429 Slow down\r\nRetry-After:  7 \r\nX: a:b\r\ncontent-length: 0\r\n\r\n")
    assert reply == HttpReply(429, {"retry-after": "7", "x": "a:b", "content-length": "0"}, b"")


def test_a_reply_of_unknown_length_ends_with_its_connection():
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhel") is None
    assert reader.feed(b"lo") is None
    assert reader.end().body == b"hello"
    assert not reader.reusable


@pytest.mark.parametrize("data", [b"", PLAIN[:20], PLAIN[:-1], CHUNKED[:-4]], ids=["nothing", "head", "body", "chunk"])
def test_a_connection_that_ends_within_a_reply_is_a_fault(data):
    reader = ReplyReader()
    assert reader.feed(data) is None
    with pytest.raises(HttpFault, match="closed the connection"):
        reader.end()


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nmany\r\n",
        b"x" * (http.LONGEST_HEAD_BYTES + 1),
    ],
    ids=["other protocol", "HTTP/2", "length no number", "negative", "huge", "no chunk size", "endless head"],
)
def test_what_is_no_reply_is_a_fault(data):
    with pytest.raises(HttpFault):
        ReplyReader().feed(data)


def test_more_than_was_announced_makes_a_connection_unusable():
    reader = ReplyReader()
    assert reader.feed(PLAIN + b"HTTP/1.1 200").body == b"hello"
    assert not reader.reusable


Answer = Callable[[bytes], bytes | None]  # the request's body -> what is sent; None: nothing, and the connection closes


@contextlib.asynccontextmanager
async def server(
    answer: Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[bytes], list[int]]]:
    """Yields the address, the heads of all requests and, in a list of one, how many connections there were."""
    heads: list[bytes] = []
    connections = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                length = int(heads[-1].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                reply = answer(await reader.readexactly(length))
                if reply is None:
                    break
                writer.write(reply)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    async with listening:
        yield f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/", heads, connections


def test_connections_are_used_again_and_no_more_than_needed():
    async def run():
        async with server(lambda body: PLAIN) as (url, heads, connections):
            client = HttpClient(url, {"authorization": "Bearer k"})
            for _ in range(5):
                assert (await client.post("/x", b"{}", 5)).body == b"hello"
            assert connections == [1]
            await asyncio.gather(*(client.post("/x", b"{}", 5) for _ in range(3)))
            assert connections == [3]
            client.close()
            first = heads[0].decode().lower().split("\r\n")
            assert first[0] == "post /v1/x http/1.1"
            assert "authorization: bearer k" in first
            assert f"host: {url.split('/')[2]}" in first

    asyncio.run(run())


@pytest.mark.parametrize("reply", [CLOSING, OLD, PLAIN + b"extra"], ids=["closing", "HTTP/1.0", "extra"])
def test_a_connection_that_is_not_to_be_used_again_is_not(reply):
    async def run():
        async with server(lambda body: reply) as (url, _, connections):
            client = HttpClient(url, {})
            for _ in range(3):
                assert (await client.post("/x", b"{}", 5)).body == b"hello"
            assert connections == [3]

    asyncio.run(run())


def test_a_late_reply_is_never_taken_for_the_next_one():
    async def run():
        release = asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n{}")
            if not release.is_set():
                await release.wait()
                writer.write(PLAIN.replace(b"hello", b"stale"))
            else:
                writer.write(PLAIN)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            client = HttpClient(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", {})
            with pytest.raises(TimeoutError):
                await client.post("/x", b"{}", 0.05)
            release.set()
            assert (await client.post("/x", b"{}", 5)).body == b"hello"
            client.close()

    asyncio.run(run())


def test_a_server_that_hangs_up_is_a_fault_and_so_is_one_that_is_not_there():
    async def run():
        async with server(lambda body: None) as (url, _, _connections):
            with pytest.raises(HttpFault, match="closed"):
                await HttpClient(url, {}).post("/x", b"{}", 5)
        with pytest.raises(OSError):
            await HttpClient(url, {}).post("/x", b"{}", 5)

    asyncio.run(run())


def test_tls_is_spoken_and_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the test's certificate, is not installed")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, check=True, capture_output=True
    )
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def post() -> HttpReply:
        async with server(lambda body: PLAIN, ours) as (url, _, _connections):
            client = HttpClient(url, {})
            try:
                return await client.post("/x", b"{}", 5)
            finally:
                client.close()

    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(post())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert asyncio.run(post()).body == b"hello"
