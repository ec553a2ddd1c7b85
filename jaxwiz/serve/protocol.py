"""OpenAI's request bodies: which fields there are, what they may hold, and what they mean to the engine.

A field that this server does not know, or knows and cannot serve, is an error that names it: nothing a client asks for
is left out silently. Fields beyond OpenAI's: top_k, min_p, repetition_penalty.
"""

import json
import secrets
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxwiz.sample.requests import MAX_LOGIT_BIASES, MAX_TOP_LOGPROBS

STOP_TEXTS = 4

Text = Annotated[str, Field(max_length=16 << 20)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
Zero = Annotated[float, Field(ge=0, le=0)]


class ApiError(Exception):
    """An error in OpenAI's form.

    Attributes:
      status: the HTTP status.
      message: what is wrong and what would be right.
      param: the field of the request, if it is one.
      code: a word that programs can tell errors by.
      headers: more headers of the response.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> dict[str, Any]:
        """Returns the JSON that says it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """How a stream ends."""

    include_usage: bool = False


class Sampling(_Strict):
    """What both kinds of request share."""

    model: Text
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=STOP_TEXTS)] | None = None
    seed: Seed | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=MAX_LOGIT_BIASES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    user: Text | None = None

    def choices(self) -> int:
        """Returns how many answers a prompt gets."""
        return self.n or 1

    def settings(self, index: int, seed: int) -> dict[str, Any]:
        """Returns the sampling fields of an engine's request.

        Args:
          index: which of the answers.
          seed: of the first one.

        Raises:
          ApiError: a key of logit_bias is no token id.
        """
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        biases = []
        for key, bias in (self.logit_bias or {}).items():
            if not key.isascii() or not key.isdigit() or len(key) > 9:
                raise ApiError(400, f"logit_bias: {key[:40]!r} is no token id; keys are ids", param="logit_bias")
            biases.append((int(key), float(bias)))
        return {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": self.top_k or 0,
            "min_p": self.min_p or 0.0,
            "repetition_penalty": 1.0 if self.repetition_penalty is None else self.repetition_penalty,
            "logit_bias": tuple(biases),
            "stop": tuple(text for text in stop if text),
            "seed": (seed + index) % 2**64,
        }

    def first_seed(self) -> int:
        """Returns the seed, a random one where the client gives none."""
        return secrets.randbits(63) if self.seed is None else self.seed


class CompletionRequest(Sampling):
    """The body of /v1/completions."""

    prompt: (
        Text | TokenIds | Annotated[list[Text], Field(min_length=1)] | Annotated[list[TokenIds], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Returns each prompt, a text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [one for one in self.prompt if isinstance(one, int)]
        return [ids] if ids else [one for one in self.prompt if not isinstance(one, int)]


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def text(self) -> str:
        """Returns the whole content."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(_Strict):
    """What form an answer has; free text is the one there is."""

    type: Literal["text"]


class ChatRequest(Sampling):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None

    def wanted_logprobs(self) -> int | None:
        """Returns how many most probable tokens are wanted at each place; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


Body = TypeVar("Body", bound=Sampling)


def parse_body(data: bytes, kind: type[Body]) -> Body:
    """Returns a request's body, checked.

    Raises:
      ApiError: 400; it names the first field at fault.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
        raise ApiError(400, f"the body is not JSON: {reason}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is a JSON {type(value).__name__}; it must be an object", code="invalid_json")
    try:
        body = kind.model_validate(value)
    except (ValidationError, RecursionError) as error:
        raise _explained(error, kind) from None
    try:
        data.decode("utf-8") and json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(400, "a text holds half of a surrogate pair; send whole characters") from None
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _explained(error: ValidationError | RecursionError, kind: type[BaseModel]) -> ApiError:
    if isinstance(error, RecursionError):
        return ApiError(400, "the body is too deeply nested", code="invalid_json")
    fault = error.errors(include_url=False, include_context=False)[0]
    names = [str(part) for part in fault["loc"] if isinstance(part, int) or part in kind.model_fields or part.islower()]
    param = names[0] if names else None
    place = ".".join(names[:3])
    if fault["type"] == "extra_forbidden":
        return ApiError(
            400, f"{place[:80]}: this server has no such parameter; leave it out", param=param and param[:80]
        )
    given = repr(fault.get("input"))
    shown = "" if fault["type"] == "missing" else f" = {given[:60]}{'...' if len(given) > 60 else ''}"
    return ApiError(400, f"{place[:80]}{shown}: {fault['msg'].lower()}", param=param and param[:80])
