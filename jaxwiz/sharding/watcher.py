"""The watcher that stands beside every process of a job and tells it, and the others, when one of them is lost.

    python -m jaxwiz.sharding.watcher INDEX COUNT HOST:PORT JOIN_TIMEOUT_S LINK_FD

A process of its own, because the one it watches may die with no chance to speak: killed, or ended by JAX itself, whose
coordination service aborts every process at once when process 0 is gone. All watchers connect to the hub, which is a
thread of the watcher of process 0, and exchange lines of JSON. A watcher sees the death of its process at once, as the
end of the link between them, and the hub sees the loss of a whole host by its silence. The first cause that the hub
hears of is the one that everybody is told: it is printed, and the processes are ended.

Between times it carries the values of `Processes.gather`. Processes that live but hang find that out themselves
(`train/watchdog.py`). Standard library only, so that it costs some 10 MB and starts at once.
"""

import contextlib
import json
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

BEAT_S = 2.0
LOST_AFTER_S = 20.0  # of silence
REMIND_S = 10.0  # between notices about processes that have yet to join
COLLECT_S = 0.5  # after the first report of a loss: whichever comes first isn't always the cause
END_S = 5.0  # that a process has to end by itself

Message = dict[str, Any]


class Line:
    """One end of a connection that carries a JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard_at = time.monotonic()
        self._buffer = b""

    def send(self, **message: Any) -> None:
        """Sends one message; a broken connection is noticed by who reads from it."""
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Returns the messages that have come since the last call, waiting for data; None: the other end is gone."""
        try:
            data = self.connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return None
        self.heard_at = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def messages(self) -> Iterator[Message]:
        """Yields messages until the other end is gone."""
        while (found := self.receive()) is not None:
            yield from found


class Hub:
    """Where all watchers meet; decides whose loss is told."""

    def __init__(self, server: socket.socket, count: int, join_timeout_s: float) -> None:
        self._server = server
        self._count = count
        self._join_by = time.monotonic() + join_timeout_s
        self._join_timeout_s = join_timeout_s
        self._lines: list[Line] = []
        self._members: dict[int, Line] = {}
        self._names: dict[int, str] = {}
        self._left: set[int] = set()
        self._values: dict[int, queue.SimpleQueue[str]] = {index: queue.SimpleQueue() for index in range(count)}
        self._reports: list[tuple[int, str, Message]] = []
        self._decide_at = 0.0

    def serve(self) -> None:
        """Returns once all processes have left, or all have been told why they must."""
        selector = selectors.DefaultSelector()
        selector.register(self._server, selectors.EVENT_READ)
        remind_at = time.monotonic() + REMIND_S
        while len(self._left) < self._count:
            for key, _ in selector.select(timeout=0.1 if self._reports else BEAT_S / 2):
                if key.data is None:
                    line = Line(self._server.accept()[0])
                    self._lines.append(line)
                    selector.register(line.connection, selectors.EVENT_READ, line)
                elif not self._hear(key.data):
                    selector.unregister(key.data.connection)
                    self._lines.remove(key.data)
            now = time.monotonic()
            for index, line in self._present():
                line.send(beat=True)
                if now - line.heard_at > LOST_AFTER_S:
                    self._report(index, f"was lost: nothing was heard of its host for {LOST_AFTER_S:.0f} s")
            absent = [index for index in range(self._count) if index not in self._members]
            if absent and now > self._join_by:
                self._report(absent[0], f"did not join within {self._join_timeout_s:.0f} s; missing: {absent}")
            elif absent and now > remind_at and 0 in self._members:
                self._members[0].send(say=f"waiting for process(es) {', '.join(map(str, absent))} of {self._count}")
                remind_at = now + REMIND_S
            if self._reports and now > self._decide_at:
                self._tell()
                self._wait_for_ends(selector)
                return

    def _present(self) -> list[tuple[int, Line]]:
        return [(index, line) for index, line in self._members.items() if index not in self._left]

    def _hear(self, line: Line) -> bool:
        """Takes in what has come over a connection; false when it is closed."""
        index = next((index for index, member in self._members.items() if member is line), None)
        received = line.receive()
        if received is None:
            if index is not None and index not in self._left:
                self._report(index, "was lost: its host, or its watcher, is gone")
            return False
        for message in received:
            if "join" in message:
                index = self._join(message, line)
            elif index is None:
                continue
            elif "value" in message:
                self._values[index].put(message["value"])
                self._share()
            elif "ended" in message:
                self._report(index, message.pop("ended"), message)
            elif "left" in message:
                self._left.add(index)
        return True

    def _join(self, message: Message, line: Line) -> int | None:
        index, count = message["join"], message["count"]
        if count != self._count or index in self._members:
            line.send(
                verdict=f"process {index} of {count} cannot join: process 0 expects {self._count}"
                if count != self._count
                else f"two processes say that they are process {index}: {self._names[index]}, {message['name']}"
            )
            self._report(index, f"({message['name']}) does not belong here: {count} processes, expected {self._count}")
            return None
        self._members[index], self._names[index] = line, message["name"]
        return index

    def _share(self) -> None:
        if all(not values.empty() for values in self._values.values()):
            gathered = [self._values[index].get() for index in range(self._count)]
            for line in self._members.values():
                line.send(gathered=gathered)

    def _report(self, index: int, what: str, how: Message | None = None) -> None:
        if not self._reports:
            self._decide_at = time.monotonic() + COLLECT_S
        if index not in [report[0] for report in self._reports]:
            self._reports.append((index, what, how or {}))

    def _tell(self) -> None:
        # JAX aborts all when process 0 is gone, so its loss explains any other of the same moment.
        index, what, how = next((report for report in self._reports if report[0] == 0), self._reports[0])
        name = f" ({self._names[index]})" if index in self._names else ""
        for line in self._lines:
            line.send(verdict=f"process {index} of {self._count}{name} {what}", culprit=index, **how)

    def _wait_for_ends(self, selector: selectors.BaseSelector) -> None:
        """Reads on for a while: closing a connection with unread data could destroy what was just sent over it."""
        give_up_at = time.monotonic() + 2 * END_S
        while self._lines and time.monotonic() < give_up_at:
            for key, _ in selector.select(timeout=BEAT_S / 2):
                if key.data is not None and key.data.receive() is None:
                    selector.unregister(key.data.connection)
                    self._lines.remove(key.data)


def watch(index: int, count: int, address: str, join_timeout_s: float, main: Line) -> None:
    """Returns when the process that is watched has left, or was ended.

    Args:
      index: of that process.
      count: processes of the job.
      address: "host:port" of the hub; this process opens it where `index` is 0.
      join_timeout_s: how long to try to reach it.
      main: the link to the process that is watched.
    """
    hub = _reach_hub(address, join_timeout_s, main)
    if hub is None:
        _end(main, f"process 0 could not be reached at {address} within {join_timeout_s:.0f} s", None)
        return
    with hub.connection:
        _relay(index, count, hub, main)


def _relay(index: int, count: int, hub: Line, main: Line) -> None:
    """Carries messages between the process and the hub until one of them is gone or says that it is over."""
    parent = os.getppid()
    hub.send(join=index, count=count, name=f"{socket.gethostname()}, pid {parent}")
    selector = selectors.DefaultSelector()
    selector.register(main.connection, selectors.EVENT_READ, main)
    selector.register(hub.connection, selectors.EVENT_READ, hub)
    log: str | None = None
    spoke = gone = False
    while True:
        # A forked child of the process may hold the link open beyond its death, so its parenthood counts, too.
        orphaned = os.getppid() != parent
        ready = {key.data for key, _ in selector.select(timeout=BEAT_S)}
        hub.send(beat=True)
        if hub in ready:
            received = hub.receive()
            for message in [] if received is None else received:
                if "verdict" in message:
                    culprit = message.pop("culprit", None)
                    _end(main, message.pop("verdict"), log, told=not spoke and culprit != index, **message)
                    return
                if "gathered" in message or "say" in message:
                    main.send(**message)
            if received is None:
                _end(main, f"process 0 of {count} was lost: its host, or its watcher, is gone", log)
                return
        if time.monotonic() - hub.heard_at > LOST_AFTER_S:
            _end(main, f"process 0 of {count} was lost: nothing was heard for {LOST_AFTER_S:.0f} s", log)
            return
        if (main in ready or orphaned) and not gone:
            received = main.receive() if main in ready else None
            for message in [] if received is None else received:
                if "left" in message:
                    hub.send(left=True)
                    return
                if "log" in message:
                    log = message["log"]
                else:
                    spoke = spoke or "ended" in message
                    hub.send(**message)
            if received is None:
                hub.send(ended="was lost: it ended without a word, as a killed process does")
                selector.unregister(main.connection)
                gone = True


def _reach_hub(address: str, timeout_s: float, main: Line) -> Line | None:
    host, port = address.rsplit(":", 1)
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        except OSError:
            if _is_closed(main.connection):
                sys.exit(0)
            time.sleep(0.2)
            continue
        if connection.getsockname() == connection.getpeername():  # TCP may connect a port that nobody opened to itself
            connection.close()
            continue
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Line(connection)
    return None


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _end(main: Line, verdict: str, log: str | None, told: bool = True, **how: Any) -> None:
    """Says why the run ends, and ends the process that is watched; `how` is what the culprit asked of it."""
    if told:
        text = f"jaxwiz: {verdict}; this run cannot go on without it and ends\n"
        sys.stderr.write(text)
        sys.stderr.flush()
        if log is not None:
            with open(log, "a", encoding="utf-8") as file:
                file.write(text)
    parent = os.getppid()
    main.send(verdict=verdict, **how)
    main.connection.settimeout(END_S)
    try:
        while main.connection.recv(1 << 16):
            pass
    except TimeoutError:
        if parent != 1 and os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
    except OSError:
        pass


def open_hub(address: str) -> socket.socket:
    """Returns the listening socket of the hub; on all interfaces, unless the address is this machine's own.

    Raises:
      OSError: the port is taken.
    """
    host, port = address.rsplit(":", 1)
    if host.startswith("127.") or host == "localhost":
        return socket.create_server(("127.0.0.1", int(port)), backlog=1024)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", int(port)), backlog=1024)


def main(arguments: list[str]) -> None:
    """Watches the process that started this one; see the module's head."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the process that is watched
    index, count, address, join_timeout_s = int(arguments[0]), int(arguments[1]), arguments[2], float(arguments[3])
    link = Line(socket.socket(fileno=int(arguments[4])))
    hub_thread = None
    if index == 0:
        try:
            server = open_hub(address)
        except OSError as error:
            _end(link, f"process 0 cannot listen at {address} ({error.strerror}); give another port", None)
            return
        hub = Hub(server, count, join_timeout_s)
        hub_thread = threading.Thread(target=hub.serve)
        hub_thread.start()
        address = f"127.0.0.1:{address.rsplit(':', 1)[1]}"
    watch(index, count, address, join_timeout_s, link)


if __name__ == "__main__":
    main(sys.argv[1:])
