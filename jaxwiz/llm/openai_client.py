"""A generator behind any OpenAI-compatible endpoint.

N workers share one list of requests, so memory stays bounded however long it is. Faults that may pass are tried again
(the SDK's own retries are off, so that this file alone decides); a fault of one item, such as a prompt that does not
fit, is that item's result; every other fault stops the run after what is in flight has come home and been reported. A
rate limit that the server reports holds all workers back, not only the one that met it.
"""

import asyncio
import contextlib
import itertools
import queue
import random
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from jaxwiz.console import warn
from jaxwiz.llm.chat import ChatEndpoint, PassingError, parse_json
from jaxwiz.llm.clock import Clock, RealClock
from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.key import read_key
from jaxwiz.llm.limits import RateLimiter
from jaxwiz.llm.protocol import (
    Activity,
    GenerationError,
    GenerationRequest,
    GenerationResult,
    OnResults,
    StopAskingError,
    estimate_tokens,
)
from jaxwiz.llm.retry import spread_s, wait_s
from jaxwiz.llm.transport import Transport, make_transport

Answers = queue.SimpleQueue[tuple[int, GenerationResult] | None]

EVERYDAY_RETRIES = 2  # of one request, before anybody is told
GATHERED_S = 0.02  # between reports of answers; nobody waits for one
LONG_WAIT_S = 60.0  # what a server may ask for before anybody is told


class OpenAIGenerator:
    """Answers with up to `max_in_flight` calls under way.

    Attributes:
      name: the model's name.
      activity: see `TextGenerator`.
    """

    def __init__(self, config: OpenAIBackend, clock: Clock | None = None) -> None:
        self.name = config.model
        self.activity = Activity()
        self._config = config
        self._clock = clock or RealClock()
        self._key = read_key(config)
        self._endpoint = ChatEndpoint(config, self._key)
        self._limiter = RateLimiter(config.requests_per_minute, config.tokens_per_minute)

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests, many at a time; see `TextGenerator`.

        Calls are made by an event loop in a thread of its own: results are reported, which may mean to wait for a disk,
        while it goes on; and it works where the caller's thread has a loop already, as in a notebook. `requests` is
        gone through once, in the caller's thread, not much further than calls are under way.
        """
        answers: Answers = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        feed = _Feed(loop, requests, self._config.max_in_flight)
        is_any = False
        try:
            is_any = feed.fill()
        finally:
            if not is_any:
                loop.close()
        if not is_any:
            return
        self._stop = _Stop(loop)
        calls = loop.create_task(self._answer_all(feed, answers))
        thread = threading.Thread(target=_run_until_done, args=(loop, calls), name="calls")
        thread.start()
        try:
            self._report(answers, feed, on_results)
        except BaseException:
            loop.call_soon_threadsafe(calls.cancel)
            raise
        finally:
            thread.join()
            loop.close()
        calls.result()
        if self._stop.fault:
            raise self._stop.fault

    async def _answer_all(self, feed: "_Feed", answers: Answers) -> None:
        """Puts every answer into `answers`, then None, also if it fails."""

        async def work() -> None:
            while (asked := await feed.take()) and not self._stop.fault:
                index, request = asked
                try:
                    answers.put((index, await self._answer(transport, request)))
                except GenerationError as fault:
                    self._stop.because(fault)
                    feed.end()

        try:
            async with make_transport(self._config, self._key) as transport:
                workers = asyncio.gather(*(work() for _ in range(feed.workers)))
                try:
                    await workers
                finally:
                    workers.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await workers
        finally:
            answers.put(None)

    def _report(self, answers: Answers, feed: "_Feed", on_results: OnResults) -> None:
        """Reports answers until the queue yields None: at once, but no sooner than `GATHERED_S` after the last report.

        A report may end on a disk, so those that arrive meanwhile go together.
        """
        ended, due = False, 0.0
        while not ended:
            arrivals = [answers.get()]
            if arrivals[0] is not None:
                time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + GATHERED_S
            while not answers.empty():
                arrivals.append(answers.get())
            ended = None in arrivals
            results = dict(arrival for arrival in arrivals if arrival is not None)
            if results:
                try:
                    on_results(results)
                    if not self._stop.fault:
                        feed.fill(len(results))
                except StopAskingError as enough:
                    self._stop.because(enough)
                    feed.end_soon()

    async def _answer(self, transport: Transport, request: GenerationRequest) -> GenerationResult:
        for attempt in range(self._config.max_retries + 1):
            try:
                return await self._call(transport, request)
            except PassingError as fault:
                reason = self._endpoint.readable(str(fault))
                if attempt < self._config.max_retries:
                    self.activity.retries += 1
                    await self._back_off(fault, reason, attempt)
        raise GenerationError(
            f"{self._config.base_url}: gave up after {self._config.max_retries + 1} attempts: {reason}; what was "
            "answered is kept, run again to continue"
        )

    async def _call(self, transport: Transport, request: GenerationRequest) -> GenerationResult:
        admitted = estimate_tokens(request.prompt) + request.max_new_tokens if self._config.tokens_per_minute else 0
        await self._wait(self._limiter.admit(admitted, self._clock.running_s()))
        while left_s := self._limiter.pause_left_s(self._clock.running_s()):
            await self._wait(spread_s(left_s, random.random()))
        self.activity.in_flight += 1
        try:
            reply = await transport.post(self._endpoint.body_of(request))
        finally:
            self.activity.in_flight -= 1
        result = self._endpoint.result_of(
            request, reply.status, parse_json(reply.body), reply.headers, self._clock.calendar_s()
        )
        if admitted:
            self._limiter.settle(admitted, result.prompt_tokens + result.new_tokens)
        return result

    async def _back_off(self, fault: PassingError, reason: str, attempt: int) -> None:
        """Waits before the attempt after this one; holds back the others, too, if the server says that it is busy."""
        if fault.wait_s is not None and fault.is_rate_limit:
            self._limiter.pause(self._clock.running_s() + fault.wait_s)
        seconds = wait_s(attempt, fault.wait_s, random.random())
        if attempt >= EVERYDAY_RETRIES or seconds > LONG_WAIT_S:
            warn(f"{self._config.base_url}: {reason}; attempt {attempt + 2} in {seconds:.1f} s")
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        """Waits, or raises the fault that ends the run meanwhile."""
        if seconds <= 0:
            return
        self.activity.waiting += 1
        try:
            await self._stop.wait_at_most(self._clock.sleep(seconds))
        finally:
            self.activity.waiting -= 1


class _Feed:
    """Requests on their way from the caller's thread to the loop's workers, as many ahead of them as there are workers.

    Attributes:
      workers: how many can have something to do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, requests: Iterable[GenerationRequest], most: int) -> None:
        self.workers = 0
        self._loop = loop
        self._left = enumerate(requests)
        self._most = most
        self._free = 2 * most  # how many more may be on their way or under way
        self._is_all = False  # whether no more are left
        self._queue: asyncio.Queue[tuple[int, GenerationRequest] | None] = asyncio.Queue()

    def fill(self, answered: int = 0) -> bool:
        """Sends on as many requests as were answered, at first twice as many as workers; says if there were any."""
        self._free += answered
        found = list(itertools.islice(self._left, self._free))
        self.workers = min(self._most, self.workers + len(found))
        if found:
            self._loop.call_soon_threadsafe(self._put, found)
        self._free -= len(found)
        if self._free and not self._is_all:
            self._is_all = True
            self._loop.call_soon_threadsafe(self._put, [None])
        return bool(found)

    def end_soon(self) -> None:
        """Lets nobody take another request; for the caller's thread."""
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Lets nobody take another request; for the loop's thread."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def _put(self, found: Sequence[tuple[int, GenerationRequest] | None]) -> None:
        for one in found:
            self._queue.put_nowait(one)

    async def take(self) -> tuple[int, GenerationRequest] | None:
        """Returns the next request and its index; None if there are no more."""
        taken = await self._queue.get()
        if taken is None:
            self._queue.put_nowait(None)  # for the next worker
        return taken


class _Stop:
    """Whether and why a run ends early.

    Attributes:
      fault: the first one, or None.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.fault: GenerationError | None = None
        self._loop = loop
        self._event = asyncio.Event()

    def because(self, fault: GenerationError) -> None:
        """Sets the fault, from any thread."""
        self.fault = self.fault or fault
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait_at_most(self, sleep: Coroutine[Any, Any, None]) -> None:
        """Returns when `sleep` has ended, or raises the fault as soon as there is one."""
        tasks = (asyncio.ensure_future(sleep), asyncio.ensure_future(self._event.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if self.fault:
            raise self.fault


def _run_until_done(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(BaseException):  # the caller asks the task for what it ended with
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
