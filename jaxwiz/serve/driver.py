"""The thread that owns the engine, and how requests come to it and events come back.

The engine is not thread-safe: this thread alone calls it. Requests and cancellations reach it through a queue, events
go to the event loop of the server. If the engine fails, every request under way is told, and no more are taken.
"""

import asyncio
import dataclasses
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from jaxwiz.sample.requests import Request, RequestError, Statistics, TokenEvent


class DriverError(Exception):
    """The engine failed."""


class DrivenEngine(Protocol):
    """What the thread needs of an engine; `sample/engine.py` has it."""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""

    def submit(self, request: Request) -> int:
        """Takes a request."""

    def cancel(self, id: int) -> None:
        """Forgets one."""

    def step(self) -> list[TokenEvent]:
        """Works."""

    def statistics(self) -> Statistics:
        """Counts."""


@dataclasses.dataclass(frozen=True)
class Addition:
    """What was added to one of a ticket's requests.

    Attributes:
      index: which of them.
      event: by the engine; its own id means nothing here.
    """

    index: int
    event: TokenEvent


class Ticket:
    """Requests that belong together, and what comes of them, on the server's event loop.

    Attributes:
      requests: in order.
      unread: requests whose last event `next` has not returned.
    """

    def __init__(self, driver: "Driver", requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self.unread = len(requests)
        self._open = len(requests)  # under way in the engine, as far as is known here
        self._driver = driver
        self._additions: asyncio.Queue[Addition | BaseException] = asyncio.Queue()

    async def next(self) -> Addition:
        """Returns the next event of any of them.

        Raises:
          RequestError: the engine has no room for one of them, ever.
          DriverError: the engine failed.
        """
        found = await self._additions.get()
        if isinstance(found, RequestError):
            raise found
        if isinstance(found, BaseException):
            raise DriverError(str(found)) from found
        self.unread -= bool(found.event.finish_reason)
        return found

    def put(self, found: "Addition | BaseException") -> None:
        """Takes an event, on the event loop."""
        if isinstance(found, Addition) and found.event.finish_reason:
            self._open -= 1
            self._driver.pending -= 1
        self._additions.put_nowait(found)

    def leave(self) -> None:
        """Frees what is still under way."""
        self._driver.pending -= self._open
        if self._open:
            self._driver.cancel(self)
        self._open = 0


class Driver:
    """Runs an engine in a thread of its own.

    Attributes:
      statistics: of the engine after its newest step.
      pending: requests taken and not finished.
      failure: what the engine failed by, or None.
    """

    def __init__(self, engine: DrivenEngine, on_failure: Callable[[], None] = lambda: None) -> None:
        self.statistics = engine.statistics()
        self.pending = 0
        self.failure: BaseException | None = None
        self._engine = engine
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[tuple[str, Ticket | None]] = queue.SimpleQueue()
        self._owners: dict[int, tuple[Ticket, int]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> Ticket:
        """Returns a ticket for requests that the engine can answer; see `require_answerable`.

        Raises:
          DriverError: the engine has failed.
        """
        if self.failure is not None:
            raise DriverError(str(self.failure))
        ticket = Ticket(self, requests)
        self.pending += len(requests)
        self._inbox.put(("submit", ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Frees the slots of a ticket's requests."""
        self._inbox.put(("cancel", ticket))

    def close(self) -> None:
        """Ends the thread after its present step."""
        self._inbox.put(("close", None))
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_messages():
                if not self._engine.idle:
                    self._deliver(self._engine.step())
                self.statistics = self._engine.statistics()
        except Exception as error:  # whatever it is, those who wait must hear of it
            self.failure = error
            tickets = {id(ticket): ticket for ticket, _ in self._owners.values()}
            while not self._inbox.empty():
                _, ticket = self._inbox.get()
                if ticket is not None:
                    tickets[id(ticket)] = ticket
            for ticket in tickets.values():
                self._loop.call_soon_threadsafe(ticket.put, error)
            self._loop.call_soon_threadsafe(self._on_failure)

    def _take_messages(self) -> bool:
        """Does what was asked for, waiting for something if the engine is idle; returns whether to go on."""
        wait = self._engine.idle
        while wait or not self._inbox.empty():
            what, ticket = self._inbox.get()
            wait = False
            if ticket is None:
                return False
            if what == "submit":
                self._submit(ticket)
            else:
                self._forget(ticket)
        return True

    def _submit(self, ticket: Ticket) -> None:
        try:
            for index, request in enumerate(ticket.requests):
                self._owners[self._engine.submit(request)] = (ticket, index)
        except RequestError as error:
            self._forget(ticket)
            self._loop.call_soon_threadsafe(ticket.put, error)

    def _forget(self, ticket: Ticket) -> None:
        for number in [number for number, (owner, _) in self._owners.items() if owner is ticket]:
            self._engine.cancel(number)
            del self._owners[number]

    def _deliver(self, events: Sequence[TokenEvent]) -> None:
        found = []
        for event in events:
            ticket, index = self._owners[event.id]
            if event.finish_reason:
                del self._owners[event.id]
            found.append((ticket, Addition(index, event)))
        self._loop.call_soon_threadsafe(_put_all, found)


def _put_all(found: Sequence[tuple[Ticket, Addition]]) -> None:
    for ticket, addition in found:
        ticket.put(addition)
