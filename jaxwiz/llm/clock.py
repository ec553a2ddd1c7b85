"""Time as the endpoint clients see it, so that tests can wait for hours in no time."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def running_s(self) -> float:
        """Returns seconds since some moment; it never goes back."""

    def calendar_s(self) -> float:
        """Returns seconds since 1970, to which a date in a header is compared."""

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`."""


class RealClock:
    """The machine's clock."""

    def running_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def calendar_s(self) -> float:
        """See `Clock`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)
