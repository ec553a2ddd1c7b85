"""A server on a free port of loopback, in a thread, over the tiny model's engine or over one that tests hold back."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from jaxwiz.llm.key import ApiKey
from jaxwiz.serve.app import Service
from jaxwiz.serve.config import LimitsConfig
from jaxwiz.serve.driver import DrivenEngine, Driver
from jaxwiz.text.tokenizer import Tokenizer
from tests.sample.conftest import MODEL, SLOTS, checkpoint, make_engine, params, tokenizer
from tests.serve.held_engine import HeldEngine

__all__ = ["checkpoint", "make_engine", "params", "tokenizer"]  # fixtures of the sampler's tests

START_SECONDS = 60


class RunningServer:
    """A server in a thread of its own.

    Attributes:
      service: of the routes.
      url: where it listens.
    """

    def __init__(self, engine: DrivenEngine, tokenizer: Tokenizer, key: str, limits: LimitsConfig) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._key, self._limits = ApiKey(key) if key else None, limits
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(START_SECONDS)

    async def _serve(self) -> None:
        driver = Driver(self._engine)
        self.service = Service(
            driver, self._tokenizer, "chatml", name="tiny", vocab_size=MODEL.vocab_size,
            positions=MODEL.context_length, slots=SLOTS, limits=self._limits, key=self._key,
        )  # fmt: skip
        self._server = uvicorn.Server(uvicorn.Config(self.service.app(), port=0, log_level="error", lifespan="off"))
        serving = asyncio.ensure_future(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self._ready.set()
        await serving
        if driver.failure is None:
            driver.close()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Returns as soon as it holds; fails if it doesn't in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come to hold in time"
        time.sleep(0.01)


@contextlib.contextmanager
def running(engine: DrivenEngine, tokenizer: Tokenizer, **changes: Any) -> Iterator[RunningServer]:
    server = RunningServer(engine, tokenizer, changes.pop("key", ""), LimitsConfig(**changes))
    try:
        yield server
    finally:
        if isinstance(engine, HeldEngine):
            engine.release_all()
        server.stop()


@pytest.fixture(scope="package")
def server(make_engine: Callable[..., Any], tokenizer: Tokenizer) -> Iterator[RunningServer]:
    with running(make_engine(), tokenizer) as started:
        yield started


@pytest.fixture
def held_server(tokenizer: Tokenizer) -> Iterator[Callable[..., Any]]:
    """Returns how to start a server whose engine a test lets go on step by step."""
    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> tuple[HeldEngine, RunningServer]:
            engine = HeldEngine()
            return engine, stack.enter_context(running(engine, tokenizer, **changes))

        yield start
