"""An engine that answers "a", "b", "c", ... and takes a step only when a test lets it."""

import threading

from jaxwiz.sample.requests import Request, Statistics, TokenEvent

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class HeldEngine:
    """See the module; it has as many slots as there are requests.

    Attributes:
      requests: those under way, by id.
      fault: what the next step raises, if anything.
    """

    def __init__(self) -> None:
        self.requests: dict[int, Request] = {}
        self.fault: Exception | None = None
        self._written: dict[int, int] = {}
        self._permits = threading.Semaphore(0)
        self._free = False
        self._next = 0

    def release(self, steps: int) -> None:
        self._permits.release(steps)

    def release_all(self) -> None:
        self._free = True
        self._permits.release()

    @property
    def idle(self) -> bool:
        return not self.requests

    def submit(self, request: Request) -> int:
        self._next += 1
        self.requests[self._next], self._written[self._next] = request, 0
        return self._next

    def cancel(self, id: int) -> None:
        self.requests.pop(id, None)

    def step(self) -> list[TokenEvent]:
        if not self._free and not self._permits.acquire(timeout=0.02):
            return []
        if self.fault is not None:
            raise self.fault
        events = []
        for id, request in list(self.requests.items()):
            letter = LETTERS[self._written[id] % len(LETTERS)]
            self._written[id] += 1
            ends = self._written[id] == request.max_new_tokens
            events.append(TokenEvent(id, (ord(letter),), letter, (), "length" if ends else ""))
            if ends:
                del self.requests[id]
        return events

    def statistics(self) -> Statistics:
        used = len(self.requests)
        return Statistics(4, used, 0, 0, 0, 0, 0, 0, 0, 0.0)
