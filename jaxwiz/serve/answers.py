"""Answers in OpenAI's form: whole objects, and the pieces of a stream."""

import dataclasses
import itertools
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from jaxwiz.sample.requests import TokenEvent, TokenLogprob
from jaxwiz.text.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"
HALF = "\ufffd"  # what half a character decodes to


@dataclasses.dataclass
class Choice:
    """One answer so far.

    Attributes:
      text: what was written.
      tokens: the ids.
      logprobs: one for each token, if they are wanted.
      finish_reason: "" until it ends.
      offset: where the next token's text begins, counted in characters of the decoded tokens.
    """

    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[TokenLogprob] = dataclasses.field(default_factory=list)
    finish_reason: str = ""
    offset: int = 0

    def extend(self, event: TokenEvent) -> None:
        """Adds what a step brought."""
        self.text += event.text
        self.tokens += event.tokens
        self.logprobs += event.logprobs
        self.finish_reason = event.finish_reason


class Form(Protocol):
    """One of the two kinds of answer.

    Attributes:
      name: the object's kind.
      stream_name: the kind of a stream's pieces.
      prefix: of ids.
    """

    name: str
    stream_name: str
    prefix: str

    def whole(self, index: int, choice: Choice) -> dict[str, Any]:
        """Returns a finished choice, without index and finish reason."""

    def opening(self, index: int) -> dict[str, Any] | None:
        """Returns what a choice begins with in a stream; None: nothing."""

    def piece(self, index: int, choice: Choice, event: TokenEvent) -> dict[str, Any]:
        """Returns what an event adds; `choice` is as it was before."""


class TextForm:
    """/v1/completions."""

    name = stream_name = "text_completion"
    prefix = "cmpl"

    def __init__(self, tokenizer: Tokenizer, echoes: Sequence[str], has_logprobs: bool) -> None:
        """Describes the answers.

        Args:
          tokenizer: the model's.
          echoes: what stands before each choice's text.
          has_logprobs: whether they have log-probabilities.
        """
        self._tokenizer, self._echoes, self._has_logprobs = tokenizer, echoes, has_logprobs

    def whole(self, index: int, choice: Choice) -> dict[str, Any]:
        """Returns a finished choice; see `Form`."""
        echo = self._echoes[index]
        logprobs = self._logprobs(len(echo), choice.tokens, choice.logprobs)
        return {"text": echo + choice.text, "logprobs": logprobs}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Returns the echoed prompt; see `Form`."""
        return {"text": self._echoes[index], "logprobs": None} if self._echoes[index] else None

    def piece(self, index: int, choice: Choice, event: TokenEvent) -> dict[str, Any]:
        """Returns what an event adds; see `Form`."""
        offset = len(self._echoes[index]) + choice.offset
        return {"text": event.text, "logprobs": self._logprobs(offset, event.tokens, event.logprobs)}

    def _logprobs(self, offset: int, tokens: Sequence[int], logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        lengths = [len(token_text(self._tokenizer, token)) for token in tokens]
        return {
            "tokens": [token_key(self._tokenizer, token) for token in tokens],
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{token_key(self._tokenizer, id): value for id, value in one.top} for one in logprobs],
            "text_offset": list(itertools.accumulate(lengths[:-1], initial=offset)) if lengths else [],
        }


class ChatForm:
    """/v1/chat/completions."""

    name = "chat.completion"
    stream_name = "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, tokenizer: Tokenizer, has_logprobs: bool) -> None:
        self._tokenizer, self._has_logprobs = tokenizer, has_logprobs

    def whole(self, index: int, choice: Choice) -> dict[str, Any]:
        """Returns a finished choice; see `Form`."""
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(choice.tokens, choice.logprobs)}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Returns the role; see `Form`."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, index: int, choice: Choice, event: TokenEvent) -> dict[str, Any]:
        """Returns what an event adds; see `Form`."""
        delta = {"content": event.text} if event.text or event.logprobs else {}
        return {"delta": delta, "logprobs": self._logprobs(event.tokens, event.logprobs)}

    def _logprobs(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        entries = []
        for token, one in zip(tokens, logprobs, strict=True):
            top = [self._entry(id, value) for id, value in one.top]
            entries.append(self._entry(token, one.logprob) | {"top_logprobs": top})
        return {"content": entries, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = token_text(self._tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": None if HALF in text else list(text.encode())}


class Reply:
    """The answer to one HTTP request as it grows.

    Attributes:
      choices: its answers in order.
    """

    def __init__(self, form: Form, model: str, prompt_tokens: int, choices: int, tokenizer: Tokenizer) -> None:
        self.choices = [Choice() for _ in range(choices)]
        self._form, self._tokenizer, self._prompt_tokens = form, tokenizer, prompt_tokens
        self._id = f"{form.prefix}-{uuid.uuid4().hex}"
        self._head = {"created": int(time.time()), "model": model}

    def whole(self) -> dict[str, Any]:
        """Returns the finished object."""
        choices = [
            {"index": index, **self._form.whole(index, choice), "finish_reason": choice.finish_reason}
            for index, choice in enumerate(self.choices)
        ]
        return {"id": self._id, "object": self._form.name, **self._head, "choices": choices, "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Returns the counts of tokens."""
        new = sum(len(choice.tokens) for choice in self.choices)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": new,
            "total_tokens": self._prompt_tokens + new,
        }

    def openings(self) -> Iterator[bytes]:
        """Yields what a stream begins with."""
        for index in range(len(self.choices)):
            made = self._form.opening(index)
            if made is not None:
                yield self._chunk([{"index": index, **made, "finish_reason": None}])

    def piece(self, index: int, event: TokenEvent) -> bytes:
        """Returns what an event adds to the stream, b"" if nothing can be seen of it; the choice is extended by it."""
        choice = self.choices[index]
        made = self._form.piece(index, choice, event)
        choice.extend(event)
        choice.offset += sum(len(token_text(self._tokenizer, token)) for token in event.tokens) if event.logprobs else 0
        if not event.text and not event.logprobs and not event.finish_reason:
            return b""
        return self._chunk([{"index": index, **made, "finish_reason": event.finish_reason or None}])

    def last(self) -> bytes:
        """Returns the piece that holds the counts of tokens alone."""
        return self._chunk([], usage=self.usage())

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {"id": self._id, "object": self._form.stream_name, **self._head}
        return data_line({**head, "choices": choices, **more})


def data_line(value: dict[str, Any]) -> bytes:
    """Returns a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as text by itself; half a character is U+FFFD, a control token empty."""
    return tokenizer.decode([token], continues=True)


def token_key(tokenizer: Tokenizer, token: int) -> str:
    """Returns a text that no other token has: its own, or "token_id:N" of a control token or half a character."""
    text = token_text(tokenizer, token)
    return f"token_id:{token}" if not text or HALF in text else text
