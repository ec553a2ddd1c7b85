"""A headless Chromium to look at pages with: a small client of its DevTools protocol over two pipes, no driver needed.

Chromium reads commands from file descriptor 3 and answers on 4, JSON ended by NUL. Only pages that we wrote ourselves
are opened, so its own sandbox, which cannot start as root, is off.
"""

import base64
import itertools
import json
import os
import selectors
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEADLINE_S = 60.0

KEYS = {"Enter": "\r", "ArrowDown": "", "ArrowUp": "", "ArrowLeft": "", "ArrowRight": "", "Escape": "", "Tab": "\t"}


class Chromium:
    """One browser with one page. `events` holds all that the page reported: requests, console messages, errors."""

    def __init__(self, profile: Path) -> None:
        assert EXECUTABLE is not None
        read_here, write_there = os.pipe()
        read_there, self._write = os.pipe()
        self._read = read_here

        def arrange() -> None:  # in the child: descriptors 3 and 4 must be the pipes, whatever numbers these have
            spare = [os.dup(read_there), os.dup(write_there)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        command = [
            EXECUTABLE,
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._log = open(profile.with_suffix(".log"), "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, preexec_fn=arrange, close_fds=False, stdout=self._log, stderr=self._log, env=_plain_environment()
        )
        os.close(write_there)
        os.close(read_there)
        self._ids = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(1280, 900)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Returns the browser's answer to one DevTools command."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path, fragment: str = "") -> None:
        """Opens a local file and returns when the page has loaded."""
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        deadline = time.monotonic() + DEADLINE_S
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """Returns the value of a JavaScript expression, evaluated in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and lets go one key, as a user does."""
        text = KEYS.get(key, key)
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        known = {"windowsVirtualKeyCode": code[key]} if key in code else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **known)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **known)

    def type(self, text: str) -> None:
        """Types a text into the focused field."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Sets the size of the page's view in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Makes the page believe that its user prefers "dark" or "light"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path, whole_page: bool = False) -> None:
        """Writes a PNG of what is seen."""
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)
        path.write_bytes(base64.b64decode(image["data"]))

    def requests(self) -> list[str]:
        """Returns the addresses that the page asked for since it was opened."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """Returns uncaught exceptions and logged errors since the page was opened."""
        thrown = [event["params"] for event in self.events if event.get("method") == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in self.events if event.get("method") == "Log.entryAdded"]
        return [str(error) for error in thrown] + [entry["text"] for entry in logged if entry["level"] == "error"]

    def close(self) -> None:
        """Ends the browser."""
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._log.close()

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            while b"\0" not in self._buffer:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                data = os.read(self._read, 1 << 20) if ready else b""
                log = Path(self._log.name)
                assert data, f"Chromium does not answer; the end of its log:\n{log.read_text(errors='replace')[-2000:]}"
                self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _plain_environment() -> dict[str, str]:
    """Returns an environment without proxies, so that a request would be seen as one and not as a proxy's."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
