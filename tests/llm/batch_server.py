"""An in-memory Batch API on 127.0.0.1: files and batches, whose fate a test decides."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Line = dict[str, Any]


@dataclass
class Fate:
    """How a batch goes on at each look: its status, and what its files hold once it has ended."""

    status: str = "completed"
    output: bytes = b""
    errors: bytes = b""
    faults: list[dict[str, str]] = field(default_factory=list)


def answer_line(line: Line, text: str, finish_reason: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    body = {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    return reply_line(line, 200, body)


def reply_line(line: Line, status: int, body: Any) -> bytes:
    response = {"status_code": status, "request_id": "r", "body": body}
    return json.dumps({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}).encode() + b"\n"


def expired_line(line: Line) -> bytes:
    error = {"code": "batch_expired", "message": "not in time"}
    return json.dumps({"id": "x", "custom_id": line["custom_id"], "response": None, "error": error}).encode() + b"\n"


def prompt_of(line: Line) -> str:
    return line["body"]["messages"][0]["content"]


@dataclass
class BatchServer:
    """What the server holds. `fate(lines, number, looks)` decides about batch `number` (0, 1, ...) at look 0, 1, ..."""

    fate: Callable[[list[Line], int, int], Fate]
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    # Called with "POST /files" and the like before the server acts (an int: answer with this status) and after it
    # acted (true: the answer gets lost on its way).
    before: Callable[[str, int], int | None] = lambda call, seen: None
    after: Callable[[str, int], bool] = lambda call, seen: False

    def lines_of(self, number: int) -> list[Line]:
        return [json.loads(line) for line in self.files[self.batches[number]["input_file_id"]].splitlines()]

    @property
    def prompts(self) -> list[list[str]]:
        return [[prompt_of(line) for line in self.lines_of(number)] for number in range(len(self.batches))]

    def store(self, content: bytes) -> str:
        self.files[f"file-{len(self.files)}"] = content
        return f"file-{len(self.files) - 1}"

    def act(self, method: str, path: str, body: bytes, content_type: str) -> Any:
        if (method, path) == ("POST", "/files"):
            boundary = content_type.partition("boundary=")[2].encode()
            part = next(part for part in body.split(b"--" + boundary) if b'name="file"' in part)
            return {"id": self.store(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")), "object": "file"}
        if path.startswith("/files/"):
            return self.files[path.split("/")[2]]
        if (method, path) == ("POST", "/batches"):
            asked = json.loads(body)
            assert asked["endpoint"] == "/v1/chat/completions"
            self.batches.append({"id": f"batch-{len(self.batches)}", "status": "validating", **asked})
            self.looks.append(0)
            return self.batches[-1]
        if path.startswith("/batches/"):
            number = int(path.rpartition("-")[2])
            batch = self.batches[number]
            fate = self.fate(self.lines_of(number), number, self.looks[number])
            self.looks[number] += 1
            batch["status"] = fate.status
            batch["output_file_id"] = self.store(fate.output) if fate.output else None
            batch["error_file_id"] = self.store(fate.errors) if fate.errors else None
            batch["errors"] = {"object": "list", "data": fate.faults} if fate.faults else None
            return batch
        assert (method, path.partition("?")[0]) == ("GET", "/batches"), path
        return {"object": "list", "data": self.batches[::-1], "has_more": False}


@contextlib.contextmanager
def batch_server(fate: Callable[[list[Line], int, int], Fate]) -> Iterator[BatchServer]:
    server = BatchServer(fate)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # a reply goes out in one piece, or each waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.removeprefix("/v1")
            call = f"{self.command} /{path.split('/')[1].partition('?')[0]}"
            with lock:
                seen = server.calls.count(call)
                server.calls.append(call)
                server.keys.append(self.headers["authorization"])
                status = server.before(call, seen)
                reply = (
                    {"error": {"message": f"no, {self.headers['authorization']}", "code": None}}
                    if status
                    else server.act(self.command, path, body, self.headers.get("content-type") or "")
                )
            if server.after(call, seen):
                self.close_connection = True
                return
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status or 200)
            kind = "application/octet-stream" if isinstance(reply, bytes) else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Tests want no access log."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
