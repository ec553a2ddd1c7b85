"""A small HTTP/1.1 client for thousands of calls a second to one server.

One POST at a time on a connection, connections kept open and used again, replies of known length, chunked or ended by
the connection's end. It knows no redirects, proxies, compression or HTTP/2, and retries nothing: a caller that gets a
fault knows only that it has no whole reply.
"""

import asyncio
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple, cast

LONGEST_HEAD_BYTES = 64 * 1024
LONGEST_BODY_BYTES = 64 * 1024 * 1024

_STATUS_LINE = re.compile(r"HTTP/1\.([01]) (\d{3})(?: .*)?")
_HEADER = re.compile(r"([^:\s]+):[ \t]*(.*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")


class HttpFault(Exception):  # noqa: N818 - a fault of the server, not of the program
    """The server did not send a whole, well-formed reply."""


class HttpReply(NamedTuple):
    """One reply.

    Attributes:
      status: for instance 200.
      headers: names in lower case; of those that come twice, the last.
      body: without any transfer coding.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ReplyReader:
    """Reads one reply from pieces of any size; knows no sockets.

    Attributes:
      reusable: after a whole reply: whether another request may follow on the same connection.
    """

    def __init__(self) -> None:
        self.reusable = False
        self._buffer = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._length: int | None = None  # None: chunked or until the end
        self._chunked = False
        self._chunks = bytearray()

    def feed(self, data: bytes) -> HttpReply | None:
        """Returns the reply once `data` completes it, else None.

        Raises:
          HttpFault: this is no HTTP/1.1 reply.
        """
        self._buffer += data
        if not self._status and not self._read_head():
            return None
        if len(self._buffer) + len(self._chunks) > LONGEST_BODY_BYTES:
            raise HttpFault(f"a reply of over {LONGEST_BODY_BYTES} bytes")
        if self._chunked:
            return self._reply(bytes(self._chunks)) if self._read_chunks() else None
        if self._length is None or len(self._buffer) < self._length:
            return None
        body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return self._reply(body)

    def end(self) -> HttpReply:
        """Returns the reply that the connection's end completes.

        Raises:
          HttpFault: it completes none.
        """
        if not self._status or self._chunked or self._length is not None:
            raise HttpFault("the server closed the connection before a whole reply")
        self.reusable = False
        return HttpReply(self._status, self._headers, bytes(self._buffer))

    def _reply(self, body: bytes) -> HttpReply:
        if self._buffer:  # more than was announced: what follows on this connection can't be trusted
            self.reusable = False
        return HttpReply(self._status, self._headers, body)

    def _read_head(self) -> bool:
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            if not (match := _STATUS_LINE.fullmatch(first)):
                raise HttpFault(f"no HTTP/1.1 reply: {first[:60]!r}")
            if match[2].startswith("1"):  # an interim reply such as 100 Continue; the real one follows
                continue
            self._status = int(match[2])
            headers = [_HEADER.fullmatch(line) for line in lines]
            self._headers = {header[1].lower(): header[2] for header in headers if header}
            self._read_framing(match[1] == "1")
            return True
        if len(self._buffer) > LONGEST_HEAD_BYTES:
            raise HttpFault(f"headers of over {LONGEST_HEAD_BYTES} bytes")
        return False

    def _read_framing(self, is_http_1_1: bool) -> None:
        self.reusable = is_http_1_1 and self._headers.get("connection", "").lower() != "close"
        self._chunked = self._headers.get("transfer-encoding", "").lower() == "chunked"
        length = self._headers.get("content-length")
        if self._status in (204, 304):
            self._length = 0
        elif length is not None and not self._chunked:
            if not length.isdecimal() or int(length) > LONGEST_BODY_BYTES:
                raise HttpFault(f"content-length: {length[:30]!r}")
            self._length = int(length)

    def _read_chunks(self) -> bool:
        """Moves whole chunks from the buffer to the body; says whether the last one has come."""
        while (line_end := self._buffer.find(b"\r\n")) >= 0:
            if not (match := _CHUNK_SIZE.fullmatch(bytes(self._buffer[:line_end]))):
                raise HttpFault("a chunk without a size")
            size, start = int(match[1], 16), line_end + 2
            if size == 0:
                trailer_end = self._buffer.find(b"\r\n\r\n", line_end)
                if trailer_end < 0:
                    return False
                del self._buffer[: trailer_end + 4]
                return True
            if len(self._buffer) < start + size + 2:
                return False
            self._chunks += self._buffer[start : start + size]
            del self._buffer[: start + size + 2]
        return False


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._reader = ReplyReader()
        self._reply: asyncio.Future[HttpReply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():  # nobody asked
            self.close()
            return
        try:
            reply = self._reader.feed(data)
        except HttpFault as fault:
            self.close()
            self._reply.set_exception(fault)
            return
        if reply is not None:
            if not self._reader.reusable:
                self.close()
            self._reply.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._reply is None or self._reply.done():
            return
        if error is not None:
            self._reply.set_exception(error)
            return
        try:
            self._reply.set_result(self._reader.end())
        except HttpFault as fault:
            self._reply.set_exception(fault)

    async def exchange(self, request: bytes) -> HttpReply:
        self._reader = ReplyReader()
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._reply

    def close(self) -> None:
        self.is_open = False
        self._transport.abort()


class HttpClient:
    """Sends POSTs to one server, each over a connection that is free or a new one; used within one event loop."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        """Makes a client that has no connection yet.

        Args:
          base_url: "http://" or "https://", with a path that goes before every request's.
          headers: sent with every request.
        """
        url = urllib.parse.urlsplit(base_url)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._tls else 80)
        self._path = url.path.rstrip("/")
        lines = {"host": url.netloc.rpartition("@")[2], "accept": "application/json", **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._free: list[_Connection] = []

    async def post(self, path: str, body: bytes, timeout_s: float) -> HttpReply:
        """Returns the reply, whatever its status.

        Raises:
          TimeoutError: no whole reply within `timeout_s`.
          OSError, HttpFault: no connection, or no whole reply.
        """
        line = f"POST {self._path}{path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n"
        async with asyncio.timeout(timeout_s):
            connection = await self._connection()
            try:
                reply = await connection.exchange(line.encode("ascii") + body)
            except BaseException:
                connection.close()  # a reply that still comes must not be taken for that to the next request
                raise
        if connection.is_open:
            self._free.append(connection)
        return reply

    def close(self) -> None:
        """Closes all connections that are free."""
        for connection in self._free:
            connection.close()
        self._free.clear()

    async def _connection(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, self._host, self._port, ssl=self._tls
        )
        return connection
