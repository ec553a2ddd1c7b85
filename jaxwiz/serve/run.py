"""Loads the model, warms it up, listens, and ends in good order.

SIGTERM and SIGINT stop new requests and wait for those under way, up to `limits.drain_seconds`; a second signal ends
at once. All programs are compiled before the first request is taken.
"""

import asyncio
import contextlib
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from jaxwiz import exit_codes
from jaxwiz.console import say
from jaxwiz.files import UserError
from jaxwiz.llm.key import ApiKey
from jaxwiz.sample.answer import cache_dtype
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.load import load_engine
from jaxwiz.serve.app import Service
from jaxwiz.serve.config import ServeConfig
from jaxwiz.serve.driver import Driver
from jaxwiz.sharding.mesh import make_mesh


def serve(config: ServeConfig) -> int:
    """Returns the exit code once the server has ended: 0 after a drain, 1 if the engine failed.

    Raises:
      UserError: the key, the checkpoint or the address cannot be used.
    """
    key = read_server_key(config)
    address = bind(config)
    mesh = None if config.mesh is None else make_mesh(config.mesh)
    engine = load_engine(
        config.checkpoint,
        config.template,
        config.slots,
        weights_dtype=config.dtype,
        cache_dtype=cache_dtype(config.dtype, config.cache_dtype),
        adapter=config.adapter,
        mesh=mesh,
        cache_tokens=config.cache_tokens,
    )
    say(f"serve: compiling for {config.slots} slots")
    engine.warm_up()
    return asyncio.run(_serve(config, engine, key, address))


def bind(config: ServeConfig) -> socket.socket:
    """Returns a socket that has the address and does not listen yet, so that a fault of it is told at once.

    Raises:
      UserError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        place = f"host = {config.host!r}, port = {config.port}"
        raise UserError(f"{place}: cannot listen there ({error.strerror}); choose another") from None
    return bound


async def _serve(config: ServeConfig, engine: Engine, key: ApiKey | None, address: socket.socket) -> int:
    server: _Server | None = None

    def stop() -> None:
        say("serve: the engine failed: " + "".join(traceback.format_exception(driver.failure)).rstrip())
        if server is not None:
            server.should_exit = True

    driver = Driver(engine, stop)
    service = Service(
        driver,
        engine.tokenizer,
        config.template,
        name=config.model_name(),
        vocab_size=engine.config.vocab_size,
        positions=engine.config.context_length,
        slots=config.slots,
        limits=config.limits,
        key=key,
    )
    settings = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=64 << 10,
        timeout_graceful_shutdown=max(1, round(config.limits.drain_seconds)),
    )
    server = _Server(settings, service)
    await server.serve([address])
    if driver.failure is None:
        driver.close()
    say("serve: ended")
    return exit_codes.FAILED if driver.failure is not None else 0


class _Server(uvicorn.Server):
    """uvicorn's, which says where it listens, drains on the first signal, and ends with code 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list | None = None) -> None:
        """Listens, and says where."""
        await super().startup(sockets)
        for listening in self.servers:
            for one in listening.sockets:
                host, port = one.getsockname()[:2]
                say(f"serve: http://{f'[{host}]' if ':' in host else host}:{port}/v1")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while it serves; uvicorn's own would raise them again at the end."""
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains at the first signal and ends at the second."""
        if self.should_exit:
            os._exit(128 + sig)
        self._service.is_draining = True
        self.should_exit = True
        say(f"serve: draining, {self._service.driver.pending} answers are under way; another signal ends at once")


def read_server_key(config: ServeConfig) -> ApiKey | None:
    """Returns the key that clients must send, None if there is to be none.

    Raises:
      UserError: it cannot be read, or is none; the message never shows it.
    """
    if config.api_key_file:
        place = f"api_key_file = {config.api_key_file!r}"
        try:
            text = Path(config.api_key_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: cannot be read ({type(error).__name__}); correct the path") from None
    elif config.api_key_env:
        place, text = f"api_key_env = {config.api_key_env!r}", os.environ.get(config.api_key_env, "").strip()
    else:
        return None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UserError(f"{place}: holds no key; a key is one word of ASCII characters")
    return ApiKey(text)
