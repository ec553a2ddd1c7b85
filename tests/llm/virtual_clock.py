"""A clock on which waiting takes no time: it goes on to the next sleeper's end as soon as nothing else is under way."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

START_S = 1_700_000_000.0


class VirtualClock:
    """See `jaxwiz.llm.clock.Clock`; `waits` are the sleeps asked for, in order.

    Real sockets may be in use beside it: time stands still while `is_busy()`, so a server's answer takes none.
    """

    def __init__(self, is_busy: Callable[[], bool] = lambda: False) -> None:
        self.waits: list[float] = []
        self.is_busy = is_busy
        self._now_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._driver: asyncio.Task[None] | None = None

    def running_s(self) -> float:
        return self._now_s

    def calendar_s(self) -> float:
        return START_S + self._now_s

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        awake = asyncio.Event()
        sleeper = (self._now_s + seconds, next(self._order), awake)
        heapq.heappush(self._sleepers, sleeper)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.ensure_future(self._drive())
        try:
            await awake.wait()
        finally:
            if sleeper in self._sleepers:  # cancelled
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    async def _drive(self) -> None:
        while self._sleepers:
            for _ in range(5):  # whatever follows from the last step comes first
                await asyncio.sleep(0)
            if self.is_busy():
                await asyncio.sleep(0.002)
            elif self._sleepers:
                wake_s, _, awake = heapq.heappop(self._sleepers)
                self._now_s = max(self._now_s, wake_s)
                awake.set()
