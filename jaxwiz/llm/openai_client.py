"""A generator behind any OpenAI-compatible endpoint.

N workers share one list of requests, so memory stays bounded however long it is. Faults that may pass are tried again
(the SDK's own retries are off, so that this file alone decides); a fault of one item, such as a prompt that does not
fit, is that item's result; every other fault stops the run after what is in flight has come home and been reported. It
doesn't limit requests or tokens per minute: the endpoint's Retry-After does.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import openai

from jaxwiz.console import warn
from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.protocol import GenerationError, GenerationRequest, GenerationResult, OnResults
from jaxwiz.llm.retry import backoff_s, is_passing, retry_after_s

Sleep = Callable[[float], Awaitable[None]]

# Faults of one prompt, by error code: the item fails with this finish reason and the run goes on.
ITEM_FAULTS = {
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
}


class _PassingError(Exception):
    """A call failed in a way that may pass.

    Attributes:
      wait_s: how long the server asks to wait; None: it doesn't say.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class OpenAIGenerator:
    """Answers with up to `max_in_flight` calls under way; not to be called from inside a running event loop.

    Attributes:
      name: the model's name.
    """

    def __init__(self, config: OpenAIBackend, sleep: Sleep = asyncio.sleep) -> None:
        self.name = config.model
        self._config = config
        self._sleep = sleep
        self._key = os.environ.get(config.api_key_env, "") if config.api_key_env else "none"
        if not self._key:
            raise GenerationError(
                f"generator.api_key_env = {config.api_key_env!r}: this environment variable is not set; export it, "
                "or set the key to '' for an endpoint without keys"
            )

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests, many at a time; see `TextGenerator`."""
        if requests:
            asyncio.run(self._generate_all(requests, on_results))

    async def _generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        waiting = iter(enumerate(requests))
        answered: asyncio.Queue[tuple[int, GenerationResult] | None] = asyncio.Queue()
        faults: list[GenerationError] = []

        async def work() -> None:
            for index, request in waiting:
                if faults:
                    return
                try:
                    answered.put_nowait((index, await self._answer(client, request, faults)))
                except GenerationError as error:
                    faults.append(error)

        client = openai.AsyncOpenAI(
            base_url=self._config.base_url, api_key=self._key, timeout=self._config.timeout_s, max_retries=0
        )
        async with client:
            workers = asyncio.gather(*(work() for _ in range(min(self._config.max_in_flight, len(requests)))))
            workers.add_done_callback(lambda _: answered.put_nowait(None))
            try:
                await _report(answered, on_results)
                await workers
            finally:
                workers.cancel()
        if faults:
            raise faults[0]

    async def _answer(
        self, client: openai.AsyncOpenAI, request: GenerationRequest, faults: list[GenerationError]
    ) -> GenerationResult:
        for attempt in range(self._config.max_retries + 1):
            try:
                return await self._call(client, request)
            except _PassingError as fault:
                reason = str(fault)
                if attempt < self._config.max_retries:
                    wait_s = fault.wait_s if fault.wait_s is not None else backoff_s(attempt, random.random())
                    if attempt >= 2:  # the first ones are everyday life at an endpoint
                        warn(f"{self._config.base_url}: {reason}; attempt {attempt + 2} in {wait_s:.1f} s")
                    await self._sleep(wait_s)
                    if faults:  # another worker met the end of the run while this one waited
                        raise faults[0] from None
        raise GenerationError(
            f"{self._config.base_url}: gave up after {self._config.max_retries + 1} attempts: {reason}; what was "
            "answered is kept, run again to continue"
        )

    async def _call(self, client: openai.AsyncOpenAI, request: GenerationRequest) -> GenerationResult:
        arguments: dict[str, Any] = {self._config.token_limit_field: request.max_new_tokens}
        if request.stop:
            arguments["stop"] = list(request.stop)
        try:
            response = await client.chat.completions.create(
                model=self._config.model,
                messages=[{"role": "user", "content": request.prompt}],
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
                **arguments,
            )
        except openai.APIStatusError as error:
            return self._result_of_refusal(error)
        except openai.APITimeoutError:
            raise _PassingError(f"no answer within {self._config.timeout_s} s") from None
        except openai.APIConnectionError as error:
            raise _PassingError(f"connection failed ({error.__cause__ or error})") from None
        except (openai.APIResponseValidationError, ValueError):
            raise _PassingError("the answer is not valid JSON") from None
        return _result_of(response)

    def _result_of_refusal(self, error: openai.APIStatusError) -> GenerationResult:
        """Returns the failed result of one item, or raises: a fault that may pass, or one that ends the run."""
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = str(body.get("message") or error.message).replace(self._key, "(key)")[:300]
        if is_passing(error.status_code, "insufficient_quota" if _no_quota(body) else code):
            wait_s = retry_after_s(error.response.headers, time.time())
            raise _PassingError(f"HTTP {error.status_code} ({message})", wait_s)
        if error.status_code in (400, 413, 422):
            if code in ITEM_FAULTS:
                return GenerationResult("", ITEM_FAULTS[code], 0, 0)
            if "maximum context length" in message:  # servers other than OpenAI's give no code
                return GenerationResult("", "context_length", 0, 0)
        raise GenerationError(
            f"{self._config.base_url}, model {self._config.model!r}: HTTP {error.status_code} {code}: {message}; "
            "this does not pass by waiting. What was answered is kept: correct it and run again"
        )


async def _report(answered: "asyncio.Queue[tuple[int, GenerationResult] | None]", on_results: OnResults) -> None:
    """Reports answers until the queue yields None; those that arrived during one report go together in the next."""
    ended = False
    while not ended:
        arrivals = [await answered.get()]
        while not answered.empty():
            arrivals.append(answered.get_nowait())
        ended = None in arrivals
        results = dict(arrival for arrival in arrivals if arrival is not None)
        if results:
            on_results(results)


def _result_of(response: Any) -> GenerationResult:
    """Returns the first choice of a chat completion; a malformed one is a fault that may pass."""
    try:
        choice = response.choices[0]
        text = choice.message.content or ""
        usage = response.usage
    except (AttributeError, IndexError, TypeError):
        raise _PassingError("the answer is no chat completion") from None
    return GenerationResult(
        text=text.encode("utf-8", "replace").decode("utf-8"),  # JSON may carry half a surrogate pair; files can't
        finish_reason=choice.finish_reason or "unknown",
        prompt_tokens=(usage.prompt_tokens or 0) if usage else 0,
        new_tokens=(usage.completion_tokens or 0) if usage else 0,
    )


def _no_quota(body: dict[str, Any]) -> bool:
    return "insufficient_quota" in (body.get("code"), body.get("type"))
