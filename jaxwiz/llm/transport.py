"""How a chat completion travels: through the official client, or over sockets of our own.

Both send one request and bring back whatever the server said, an error status included; what that means, and whether
to try again, is decided elsewhere. The official client costs over 1.5 ms of processor time a call, more the more are in
flight, so one process tops out at some hundreds of calls a second; the direct transport costs a tenth of that.
"""

import json
import resource
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import openai

import jaxwiz
from jaxwiz.llm.chat import PassingError
from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.http import HttpClient, HttpFault, HttpReply
from jaxwiz.llm.key import ApiKey
from jaxwiz.llm.protocol import GenerationError

SPARE_FILES = 64  # journal, logs, libraries: what a process opens beside its sockets
PATH = "/chat/completions"


class Transport(Protocol):
    """Sends requests; an async context manager, inside which connections stay open."""

    async def post(self, body: Mapping[str, Any]) -> HttpReply:
        """Returns the server's reply, whatever its status.

        Raises:
          PassingError: no connection, or no whole reply in time.
        """

    async def __aenter__(self) -> "Transport":
        """Returns itself."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes all connections."""


def make_transport(config: OpenAIBackend, key: ApiKey) -> Transport:
    """Returns the transport that `config` names.

    Raises:
      GenerationError: the system does not allow `max_in_flight` sockets.
    """
    allow_sockets(config.max_in_flight)
    return OfficialTransport(config, key) if config.transport == "openai" else DirectTransport(config, key)


def allow_sockets(count: int) -> None:
    """Raises the process's own limit of open files, as far as the system lets it, so that `count` sockets fit.

    Raises:
      GenerationError: they don't.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise GenerationError(
            f"generator.max_in_flight = {count}: this system lets a process open {hard} files; have the limit raised "
            f"(ulimit -Hn) or ask for at most {hard - SPARE_FILES}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class OfficialTransport:
    """The official client, its own retries off."""

    def __init__(self, config: OpenAIBackend, key: ApiKey) -> None:
        self._timeout_s = config.timeout_s
        # As many connections are kept as are used: the default of 100 would open a new one for most of more calls.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=key.reveal(),
            timeout=config.timeout_s,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                limits=limits(max_connections=config.max_in_flight, max_keepalive_connections=config.max_in_flight)
            ),
        )

    async def post(self, body: Mapping[str, Any]) -> HttpReply:
        """See `Transport`. Asks for the plain response: building the client's own types doubles what a call costs."""
        try:
            content = await self._client.post(PATH, body=dict(body), cast_to=openai.HttpxBinaryResponseContent)
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError:
            raise PassingError(f"no answer within {self._timeout_s} s") from None
        except openai.APIConnectionError as error:
            raise PassingError(f"connection failed ({error.__cause__ or error})") from None
        else:
            response = content.response
        return HttpReply(response.status_code, response.headers, response.content)

    async def __aenter__(self) -> "OfficialTransport":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()


class DirectTransport:
    """Our own HTTP client."""

    def __init__(self, config: OpenAIBackend, key: ApiKey) -> None:
        self._timeout_s = config.timeout_s
        headers = {
            "authorization": f"Bearer {key.reveal()}",
            "content-type": "application/json",
            "user-agent": f"jaxwiz/{jaxwiz.__version__}",  # some gateways refuse who doesn't say
        }
        self._client = HttpClient(config.base_url, headers)

    async def post(self, body: Mapping[str, Any]) -> HttpReply:
        """See `Transport`."""
        try:
            return await self._client.post(PATH, json.dumps(body).encode("ascii"), self._timeout_s)
        except TimeoutError:
            raise PassingError(f"no answer within {self._timeout_s} s") from None
        except (OSError, HttpFault) as error:
            raise PassingError(f"connection failed ({error})") from None

    async def __aenter__(self) -> "DirectTransport":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
