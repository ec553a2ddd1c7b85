"""A hub on this machine that speaks what huggingface_hub asks: what a repository has, and a file of it."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")
_ASKED = re.compile(r"/api/(?P<listed>(?:models|datasets)/[^/]+/[^/]+)(?P<tree>.*/tree/)?.*")
_FILE = re.compile(rf"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/{COMMIT}/(?P<file>.*)")


@dataclasses.dataclass
class LocalHub:
    """A running hub.

    Attributes:
      url: its address.
      asked: the files that were asked of it.
    """

    url: str
    asked: list[str] = dataclasses.field(default_factory=list)

    def environment(self, home: Path) -> dict[str, str]:
        """Returns the environment of a process that takes this hub for the one; it is read at import."""
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return {**os.environ, **dict.fromkeys(PROXIES, ""), **settings, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@contextlib.contextmanager
def local_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[LocalHub]:
    """Yields a hub with files by repository: "models/owner/name" or "datasets/owner/name"."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            listed, wanted = _ASKED.fullmatch(path), _FILE.fullmatch(path)
            if listed and (files := repositories.get(listed["listed"])) is not None:
                tree = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in files.items()]
                siblings = [{"rfilename": name} for name in files]
                name = listed["listed"].partition("/")[2]
                info = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                self._send(200, json.dumps(tree if listed["tree"] else info).encode(), body)
                return
            files = repositories.get(f"{wanted['kind'] or 'models/'}{wanted['name']}", {}) if wanted else {}
            if wanted and wanted["file"] in files:
                hub.asked.append(wanted["file"])
                self._send(200, files[wanted["file"]], body)
            else:
                self._send(404, b"{}", body)

        def _send(self, status: int, data: bytes, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:40]}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests want no access log."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = LocalHub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
