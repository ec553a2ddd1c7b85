"""Google Cloud Storage in memory: as much of its JSON interface as saving and restoring a state speaks.

    with FakeGcs("bucket") as gcs:      # gs://bucket is here, for gcsfs and TensorStore alike
        ... gcs.objects ...

Objects are bytes by name; every write gives a new generation. Uploads by media, multipart and resumable; downloads of
ranges; lists with prefix and delimiter; rewrites; deletes, also by batch. No authorisation, no conditions but
ifGenerationMatch.
"""

import http.server
import json
import os
import re
import sys
import threading
import urllib.parse
from types import TracebackType
from typing import Any


class FakeGcs:
    """A server on a free port; while it is entered, the environment points to it."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.lock = threading.Lock()
        self._last = 1000
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gcs = self  # type: ignore[attr-defined]
        self._before: dict[str, str | None] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeGcs":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        environ = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GOOGLE_CLOUD_PROJECT": "none",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google what kind of bucket this is
        }
        self._before = {name: os.environ.get(name) for name in environ}
        os.environ.update(environ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def put(self, name: str, content: bytes, generation_match: str | None = None) -> dict[str, Any] | None:
        """Returns the new object's metadata; None if its generation is not the one that was asked for."""
        with self.lock:
            if generation_match is not None and self.generations.get(name, 0) != int(generation_match):
                return None
            self._last += 1
            self.objects[name], self.generations[name] = content, self._last
        return self.metadata(name)

    def metadata(self, name: str) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": self.bucket,
            "size": str(len(self.objects[name])),
            "generation": str(self.generations[name]),
            "metageneration": "1",
            "etag": str(self.generations[name]),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        items, prefixes = [], set()
        with self.lock:
            for name in sorted(self.objects):
                if not name.startswith(prefix) or name < start or (end and name >= end):
                    continue
                head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                if found:
                    prefixes.add(f"{prefix}{head}{delimiter}")
                else:
                    items.append(self.metadata(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def delete(self, name: str) -> bool:
        with self.lock:
            self.generations.pop(name, None)
            return self.objects.pop(name, None) is not None


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients hang up as they like
            super().handle_error(request, address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def gcs(self) -> FakeGcs:
        return self.server.gcs  # type: ignore[attr-defined,no-any-return]

    def log_message(self, *_: Any) -> None:
        pass

    def _request(self) -> tuple[list[str], dict[str, str], bytes]:
        """Returns the path's parts, the query and the body."""
        parsed = urllib.parse.urlparse(self.path)
        parts = [urllib.parse.unquote(part) for part in parsed.path.strip("/").split("/")]
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return parts, dict(urllib.parse.parse_qsl(parsed.query)), body

    def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_json(self, data: dict[str, Any] | None, otherwise: int = 404) -> None:
        if data is None:
            data, code = {"error": {"code": otherwise, "message": "no such object"}}, otherwise
        else:
            code = 200
        self._answer(code, json.dumps(data).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        parts, query, _ = self._request()
        if parts[0] == "download":
            parts = parts[1:]
        after_bucket = parts[4:]  # storage v1 b BUCKET
        if not after_bucket:
            self._answer_json({"kind": "storage#bucket", "name": self.gcs.bucket, "id": self.gcs.bucket})
        elif len(after_bucket) == 1:
            self._answer_json(self.gcs.listed(query))
        else:
            self._get_object("/".join(after_bucket[1:]), query)

    def _get_object(self, name: str, query: dict[str, str]) -> None:
        with self.gcs.lock:
            content, generation = self.gcs.objects.get(name), self.gcs.generations.get(name)
        if content is None:
            self._answer_json(None)
        elif query.get("alt") != "media":
            self._answer_json(self.gcs.metadata(name))
        elif (asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))) is None:
            self._answer(200, content, X_Goog_Generation=str(generation))
        else:
            begin, end = int(asked[1] or 0), int(asked[2]) + 1 if asked[2] else len(content)
            if not asked[1]:
                begin, end = max(0, len(content) - int(asked[2])), len(content)
            part, end = content[begin:end], min(end, len(content))
            told = f"bytes {begin}-{end - 1}/{len(content)}"
            self._answer(206 if part else 416, part, Content_Range=told, X_Goog_Generation=str(generation))

    def do_POST(self) -> None:
        parts, query, body = self._request()
        if parts[0] == "batch":
            self._batch(body)
        elif parts[0] == "resumable":
            self._go_on(parts[1], body)
        elif parts[0] == "upload":
            self._upload(query, body)
        else:  # storage v1 b BUCKET o NAME... rewriteTo|copyTo|moveTo [b BUCKET] o NAME...
            path = re.fullmatch(r"(.*)/(rewriteTo|copyTo|moveTo)(?:/b/[^/]+)?/o/(.*)", "/".join(parts[5:]))
            if path is None:
                raise NotImplementedError(self.path)
            source, verb, target = path.groups()
            content = self.gcs.objects.get(source)
            resource = None if content is None else self.gcs.put(target, content)
            done = {"kind": "storage#rewriteResponse", "done": True, "resource": resource}
            if verb == "moveTo":
                self.gcs.delete(source)
            self._answer_json(done if resource is not None and verb == "rewriteTo" else resource)

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind, name, match = query["uploadType"], query.get("name"), query.get("ifGenerationMatch")
        if kind == "resumable":
            upload = str(len(self.gcs.uploads) + 1)
            self.gcs.uploads[upload] = (name or json.loads(body)["name"], b"")
            self._answer(200, Location=f"{self.gcs.url}/resumable/{upload}")
            return
        if kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()  # type: ignore[index]
            described, media = (
                re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in body.split(b"--" + boundary)[1:3]
            )
            name = json.loads(described)["name"]
            body = media.removesuffix(b"\n").removesuffix(b"\r")
        assert name is not None
        self._answer_json(self.gcs.put(name, body, match), otherwise=412)

    def do_PUT(self) -> None:
        parts, _, body = self._request()
        self._go_on(parts[1], body)

    def _go_on(self, upload: str, body: bytes) -> None:
        """Takes the next part of a resumable upload; the object is there once the last one is."""
        name, before = self.gcs.uploads[upload]
        if self.headers.get("Content-Range", "").endswith("/*"):
            self.gcs.uploads[upload] = (name, before + body)
            self._answer(308, Range=f"bytes=0-{len(before + body) - 1}")
        else:
            self._answer_json(self.gcs.put(name, before + body))

    def do_DELETE(self) -> None:
        parts, _, _ = self._request()
        if self.gcs.delete("/".join(parts[5:])):
            self._answer(204)
        else:
            self._answer_json(None)

    def _batch(self, body: bytes) -> None:
        answers = []
        for asked in re.findall(rb"DELETE (\S+) HTTP", body):
            path = urllib.parse.unquote(urllib.parse.urlparse(asked.decode()).path)
            gone = self.gcs.delete(path.split("/o/", 1)[1])
            answers.append(
                f"--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {204 if gone else 404} Told\r\n\r\n\r\n"
            )
        self._answer(200, ("".join(answers) + "--x--").encode(), Content_Type="multipart/mixed; boundary=x")
