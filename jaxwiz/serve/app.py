"""The server's routes: /v1/completions, /v1/chat/completions, /v1/models, /health and /metrics.

Bad input is a 4xx in OpenAI's error form, whatever it is. A request takes as many places as it has answers; above the
limit of the queue it is refused with the time after which to come again. A client that goes away frees its places.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxwiz.llm.key import ApiKey
from jaxwiz.sample import requests as engine_requests
from jaxwiz.sample.prompts import NO_TEMPLATE, Prompter
from jaxwiz.sample.requests import RequestError, require_answerable
from jaxwiz.serve import metrics
from jaxwiz.serve.answers import DONE, ChatForm, Form, Reply, TextForm, data_line
from jaxwiz.serve.config import LimitsConfig
from jaxwiz.serve.driver import Driver, DriverError, Ticket
from jaxwiz.serve.protocol import ApiError, Body, ChatRequest, CompletionRequest, Sampling, parse_body
from jaxwiz.text.chat_template import TemplateError
from jaxwiz.text.messages import Message as Turn
from jaxwiz.text.tokenizer import Tokenizer

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
RETRY_AFTER_S = 2
CLIENT_GONE = 499  # in metrics only: nobody is there to read it


class Service:
    """What the routes share.

    Attributes:
      driver: the engine's thread.
      is_draining: whether the server is about to end and takes no more requests.
    """

    def __init__(
        self,
        driver: Driver,
        tokenizer: Tokenizer,
        template: str,
        *,
        name: str,
        vocab_size: int,
        positions: int,
        slots: int,
        limits: LimitsConfig,
        key: ApiKey | None,
    ) -> None:
        """Describes the model and its limits.

        Args:
          driver: the engine's thread.
          tokenizer: the model's.
          template: how chats are put to it.
          name: what clients call it.
          vocab_size: ids that a prompt may hold.
          positions: of its context.
          slots: answers at once.
          limits: of requests.
          key: that clients must send; None: none.
        """
        self.driver = driver
        self.is_draining = False
        self.metrics = metrics.Metrics(lambda: driver.statistics)
        self._tokenizer = tokenizer
        self._chat, self._plain = Prompter(tokenizer, template), Prompter(tokenizer, NO_TEMPLATE)
        self._name, self._vocab_size, self._positions, self._slots = name, vocab_size, positions, slots
        self._limits, self._key = limits, key
        self._created = int(time.time())

    def app(self) -> ASGIApp:
        """Returns the ASGI application."""
        routes = [
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chats, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._models, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        handlers: dict[Any, Callable[..., Any]] = {
            ApiError: _told,
            HTTPException: _http_fault,
            RequestError: _bad_request,
            DriverError: _fault,
            Exception: _fault,  # the server logs the traceback
        }
        return _Counted(Starlette(routes=routes, exception_handlers=handlers), self.metrics)

    async def _health(self, request: Request) -> Response:
        fault = "draining" if self.is_draining else "engine failed" if self.driver.failure else ""
        return JSONResponse({"status": fault or "ok"}, status_code=503 if fault else 200)

    async def _metrics(self, request: Request) -> Response:
        self._authorise(request)
        return Response(self.metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def _models(self, request: Request) -> Response:
        self._authorise(request)
        card = {"id": self._name, "object": "model", "created": self._created, "owned_by": "jaxwiz"}
        asked = request.path_params.get("name")
        if asked is None:
            return JSONResponse({"object": "list", "data": [card]})
        self._require_model(asked)
        return JSONResponse(card)

    async def _completions(self, request: Request) -> Response:
        body = await self._body(request, CompletionRequest)
        if body.best_of not in (None, body.choices()):
            raise ApiError(
                400, f"best_of = {body.best_of}: only n itself, {body.choices()}, is served", param="best_of"
            )
        if body.echo and body.logprobs is not None:
            raise ApiError(400, "echo: log-probabilities of the prompt are not served; leave one out", param="echo")
        prompts = body.prompts()
        self._require_few(len(prompts) * body.choices())
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        encoded = iter(await run_in_threadpool(self._plain.encode_instructions, texts))
        ids = [next(encoded) if isinstance(prompt, str) else prompt for prompt in prompts]
        echoes = [""] * len(prompts)
        if body.echo:
            echoes = [one if isinstance(one, str) else self._tokenizer.decode(one) for one in prompts]
        per_choice = [echo for echo in echoes for _ in range(body.choices())]
        form = TextForm(self._tokenizer, per_choice, body.logprobs is not None)
        new_tokens = body.max_tokens or DEFAULT_COMPLETION_TOKENS
        return await self._answer(request, body, ids, form, new_tokens, body.logprobs, ())

    async def _chats(self, request: Request) -> Response:
        body = await self._body(request, ChatRequest)
        self._require_few(body.choices())
        turns = [Turn("system" if one.role == "developer" else one.role, one.text()) for one in body.messages]
        try:
            (ids,) = await run_in_threadpool(self._chat.encode, [turns])
        except TemplateError as error:
            raise ApiError(400, f"messages: {error}", param="messages") from None
        room = max(1, min(self._limits.max_tokens, self._positions - len(ids)))
        new_tokens = body.max_completion_tokens or body.max_tokens or room
        form = ChatForm(self._tokenizer, bool(body.logprobs))
        stop = self._chat.end_texts
        return await self._answer(request, body, [ids], form, new_tokens, body.wanted_logprobs(), stop)

    async def _answer(
        self,
        request: Request,
        body: Sampling,
        prompts: Sequence[list[int]],
        form: Form,
        new_tokens: int,
        logprobs: int | None,
        stop: tuple[str, ...],
    ) -> Response:
        began = time.monotonic()
        if new_tokens > self._limits.max_tokens:
            raise ApiError(
                400,
                f"max_tokens = {new_tokens}: this server gives at most {self._limits.max_tokens}",
                param="max_tokens",
            )
        seed = body.first_seed()
        asked = []
        for prompt in prompts:
            for index in range(body.choices()):
                settings = body.settings(index, seed)
                settings["stop"] = (*stop, *settings["stop"])
                asked.append(engine_requests.Request(prompt, new_tokens, logprobs=logprobs, **settings))
        for one in asked[:: body.choices()]:
            require_answerable(one, self._vocab_size, self._positions)
        if self.driver.pending + len(asked) > self._slots + self._limits.queue:
            raise ApiError(
                429, f"{self.driver.pending} answers are under way or wait; try again later", code="queue_full",
                Retry_After=str(RETRY_AFTER_S),
            )  # fmt: skip
        reply = Reply(form, self._name, sum(map(len, prompts)), len(asked), self._tokenizer)
        ticket = self.driver.submit(asked)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return _TicketResponse(self._stream(ticket, reply, began, with_usage), ticket)
        try:
            await _or_gone(self._collect(ticket, reply, began), request)
        finally:
            ticket.leave()
        return JSONResponse(reply.whole())

    async def _collect(self, ticket: Ticket, reply: Reply, began: float) -> None:
        async for index, event in self._events(ticket, began):
            reply.choices[index].extend(event)

    async def _stream(self, ticket: Ticket, reply: Reply, began: float, with_usage: bool) -> AsyncIterator[bytes]:
        for piece in reply.openings():
            yield piece
        try:
            async for index, event in self._events(ticket, began):
                piece = reply.piece(index, event)
                if piece:
                    yield piece
        except (ApiError, RequestError, DriverError) as error:
            told = error if isinstance(error, ApiError) else ApiError(400, str(error))
            yield data_line((ApiError(500, "the engine failed") if isinstance(error, DriverError) else told).body())
            return
        if with_usage:
            yield reply.last()
        yield DONE

    async def _events(self, ticket: Ticket, began: float) -> AsyncIterator[tuple[int, engine_requests.TokenEvent]]:
        """Yields (choice, event) until all choices have ended.

        Raises:
          ApiError: 504, the request took too long.
        """
        waiting_for_first = True
        while ticket.unread:
            left = began + self._limits.seconds - time.monotonic()
            try:
                addition = await asyncio.wait_for(ticket.next(), max(0.0, left))
            except TimeoutError:
                raise ApiError(
                    504, f"the answer took more than the {self._limits.seconds:g} s that a request has", code="timeout"
                ) from None
            if waiting_for_first:
                self.metrics.first_token(time.monotonic() - began)
                waiting_for_first = False
            yield addition.index, addition.event

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        self._authorise(request)
        if self.is_draining:
            raise ApiError(503, "the server is about to end; try another", code="draining", Connection="close")
        most = self._limits.body_kib << 10
        declared = request.headers.get("content-length", "")
        data = bytearray()
        if not (declared.isdigit() and int(declared) > most):
            async for part in request.stream():
                data += part
                if len(data) > most:
                    break
        if len(data) > most or (declared.isdigit() and int(declared) > most):
            raise ApiError(413, f"the body is larger than the {most >> 10} KiB that are allowed", Connection="close")
        body = parse_body(bytes(data), kind)
        self._require_model(body.model)
        return body

    def _authorise(self, request: Request) -> None:
        if self._key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.reveal().encode()):
            raise ApiError(
                401, "wrong or no API key; send it as `Authorization: Bearer KEY`", code="invalid_api_key",
                WWW_Authenticate="Bearer",
            )  # fmt: skip

    def _require_model(self, name: str) -> None:
        if name != self._name:
            raise ApiError(
                404, f"model {name[:80]!r} is not here; this server has {self._name!r}", param="model",
                code="model_not_found",
            )  # fmt: skip

    def _require_few(self, choices: int) -> None:
        if choices > self._limits.choices:
            raise ApiError(
                400, f"n: {choices} answers in one request, at most {self._limits.choices}; send several", param="n"
            )


class _TicketResponse(StreamingResponse):
    """A stream whose places are freed however it ends, even if it never began."""

    def __init__(self, content: AsyncIterator[bytes], ticket: Ticket) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.leave()


class _Counted:
    """Counts each request by route and status, and its time."""

    def __init__(self, app: ASGIApp, counts: metrics.Metrics) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:
            pass
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._counts.count(route, status, time.monotonic() - began)


async def _or_gone(work: Any, request: Request) -> None:
    """Waits for `work`, or ends it when the client goes away.

    Raises:
      ClientDisconnect: it went away.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def _bad_request(request: Request, error: Exception) -> Response:
    return await _told(request, ApiError(400, str(error)))


async def _fault(request: Request, error: Exception) -> Response:
    what = "the engine failed" if isinstance(error, DriverError) else "internal error"
    return await _told(request, ApiError(500, f"{what}; the server's log says more"))


async def _http_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "no such route", 405: "this route does not take that method"}.get(error.status_code, error.detail)
    return await _told(request, ApiError(error.status_code, f"{request.method} {request.url.path[:200]}: {text}"))
