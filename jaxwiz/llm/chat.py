"""Chat completions without a transport: what a request looks like, and what a reply to it means.

The one place that tells apart what may pass (try again), what is one prompt's own fault (its result says so), and what
ends the run. Both the endpoint client and the Batch API, whose files hold the same bodies and replies, ask it.
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.key import ApiKey
from jaxwiz.llm.protocol import GenerationError, GenerationRequest, GenerationResult, QuotaError, estimate_tokens
from jaxwiz.llm.retry import asked_wait_s, is_passing

# Faults of one prompt, by error code: the item fails with this finish reason and the run goes on.
ITEM_FAULTS = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
}
MESSAGE_CHARACTERS = 300
# A 429 that never passes: the account has nothing left.
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class PassingError(Exception):
    """A call failed in a way that may pass.

    Attributes:
      wait_s: how long the server asks to wait; None: it doesn't say.
      is_rate_limit: the server says that it gets too many requests, so others should wait, too.
    """

    def __init__(self, reason: str, wait_s: float | None = None, is_rate_limit: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.is_rate_limit = is_rate_limit


class ChatEndpoint:
    """One model at one address.

    Attributes:
      where: address and model, for messages.
    """

    def __init__(self, config: OpenAIBackend | OpenAIBatchBackend, key: ApiKey) -> None:
        self.where = f"{config.base_url}, model {config.model!r}"
        self._config = config
        self._key = key

    def body_of(self, request: GenerationRequest) -> dict[str, Any]:
        """Returns the JSON body that asks `request`."""
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": request.prompt}],
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            self._config.token_limit_field: request.max_new_tokens,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        return body

    def result_of(
        self, request: GenerationRequest, status: int, body: Any, headers: Mapping[str, str], now_s: float
    ) -> GenerationResult:
        """Returns the result of `request`, a failed one if the fault is the prompt's.

        Args:
          request: what was asked.
          status: the HTTP status.
          body: what the reply's JSON holds, or None if it is no JSON.
          headers: of the reply, names in lower case.
          now_s: seconds since 1970.

        Raises:
          PassingError: it may be tried again.
          GenerationError: the run must end; `QuotaError` where the account has no credit.
        """
        if status == 200:
            return _completion(request, body)
        error = _error_in(body)
        if status in (400, 413, 422):
            if reason := ITEM_FAULTS.get(str(error.get("code") or error.get("type"))):
                return GenerationResult("", reason, 0, 0)
            if "maximum context length" in str(error.get("message")):  # servers other than OpenAI's give no code
                return GenerationResult("", "context_length", 0, 0)
        raise self.fault_of(status, body, headers, now_s)

    def fault_of(
        self, status: int, body: Any, headers: Mapping[str, str], now_s: float
    ) -> "PassingError | GenerationError":
        """Returns what a reply means that is not OK and no prompt's fault; arguments as for `result_of`."""
        error = _error_in(body)
        code = str(error.get("code") or error.get("type") or "")
        message = self.readable(str(error.get("message") or "no message"))
        no_credit = status == 402 or bool(NO_CREDIT & {code, str(error.get("type"))})
        if not no_credit and is_passing(status):
            return PassingError(f"HTTP {status} ({message})", asked_wait_s(headers, now_s), is_rate_limit=status == 429)
        return (QuotaError if no_credit else GenerationError)(
            f"{self.where}: HTTP {status} {self.readable(code)}: {message}; this does not pass by waiting. What was "
            "answered is kept: correct it and run again"
        )

    def readable(self, text: str) -> str:
        """Returns what a server wrote as it may be shown: without the key, and not endless."""
        return self._key.hidden_in(text)[:MESSAGE_CHARACTERS]


def parse_json(data: bytes) -> Any:
    """Returns what JSON text holds, or None if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _error_in(body: Any) -> dict[str, Any]:
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _completion(request: GenerationRequest, body: Any) -> GenerationResult:
    """Returns the first choice of a chat completion; a malformed one is a fault that may pass."""
    if body is None:
        raise PassingError("the answer is not valid JSON")
    try:
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        usage = body.get("usage") or {}
        reason = choice.get("finish_reason") or "unknown"
        prompt_tokens, new_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        text = text.encode("utf-8", "replace").decode("utf-8")  # JSON may carry half a surrogate pair; files can't
    except (AttributeError, IndexError, KeyError, TypeError):
        raise PassingError("the answer is no chat completion") from None
    return GenerationResult(
        text=text,
        finish_reason=str(reason),
        prompt_tokens=prompt_tokens if isinstance(prompt_tokens, int) else estimate_tokens(request.prompt),
        new_tokens=new_tokens if isinstance(new_tokens, int) else estimate_tokens(text),
    )
