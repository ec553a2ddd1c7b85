"""An OpenAI-compatible server on 127.0.0.1 that behaves, or misbehaves, as a test tells it to."""

import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RESET = "reset the connection"


@dataclass
class Reply:
    status: int = 200
    body: Any = None  # an object is sent as JSON, text as it is
    headers: dict[str, str] = field(default_factory=dict)


def chat(text: str | None, finish_reason: str | None = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Reply(body=body)


def error(status: int, code: str | None = None, message: str = "no", **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message, "type": None, "code": code}}, names)


Script = Callable[[str, int], Reply | str]  # (prompt, how often it was seen before) -> reply or RESET


@dataclass
class ScriptedServer:
    url: str
    bodies: list[dict[str, Any]]
    keys: list[str]
    most_at_once: int = 0

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]


class _QuietServer(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the script."""


@contextlib.contextmanager
def scripted_server(script: Script) -> Iterator[ScriptedServer]:
    lock = threading.Lock()
    seen: Counter[str] = Counter()
    running = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # a reply goes out in one piece, or each waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            nonlocal running
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = body["messages"][0]["content"]
            with lock:
                server.bodies.append(body)
                server.keys.append(self.headers["authorization"])
                before = seen[prompt]
                seen[prompt] += 1
                running += 1
                server.most_at_once = max(server.most_at_once, running)
            try:
                reply = script(prompt, before)
            finally:
                with lock:
                    running -= 1
            if isinstance(reply, str):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            data = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
            self.send_response(reply.status)
            for name, value in {"content-type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Tests want no access log."""

    http = _QuietServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = ScriptedServer(f"http://127.0.0.1:{http.server_address[1]}/v1", [], [])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
