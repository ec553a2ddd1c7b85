"""What every text generator is: something that answers a list of requests and reports answers as they come.

The protocol is synchronous and takes all requests of a phase at once, since that is the one form that suits all kinds
of backend: an endpoint client keeps N of them in flight inside its own event loop, the local engine cuts them into
fixed batches, and the batch API writes them to files. Answers are reported through a callback as soon as they
exist, several at a time where they arrive together, so that the caller can make them durable with one write.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from jaxwiz.files import UserError


class GenerationError(UserError):
    """The generator cannot go on (wrong key, no connection). What was answered before has been reported."""


class QuotaError(GenerationError):
    """The account has no credit left; waiting does not help, paying does."""


class StopAskingError(GenerationError):
    """Raised by a caller's `on_results`: enough, for instance because a budget is spent.

    Nothing more is sent. What is already under way is paid for, so it is waited for and reported, and then the error
    passes through. A batch that may take a day is not waited for: the next run collects it. (Any other error of
    `on_results`, such as a full disk, ends generation at once.)
    """


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One question to a model.

    Attributes:
      prompt: a user message, without any chat template.
      seed: sampling seed, 0 to 2**31 - 1.
      max_new_tokens: most tokens to generate.
      temperature: 0 is greedy.
      top_p: nucleus size, in (0, 1].
      stop: texts at which generation ends; they are not part of the answer.
    """

    prompt: str
    seed: int
    max_new_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationResult:
    """One answer.

    Attributes:
      text: what the model wrote, without control tokens and without the stop text.
      finish_reason: "stop" (it ended by itself), "length" (cut at max_new_tokens), "content_filter", or
        "context_length" (the prompt does not fit, so nothing was generated); endpoints may have more.
      prompt_tokens: tokens of the prompt as the model saw it, as the backend counts and bills them; an estimate where
        it answers without saying; 0 if it generated nothing.
      new_tokens: generated tokens, billed ones that nobody sees (reasoning) included; estimated and 0 likewise.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


@dataclasses.dataclass
class Activity:
    """What a generator is doing, for a progress display; it changes while `generate_all` runs.

    Attributes:
      in_flight: requests sent and not yet answered.
      retries: how often a request was sent again, in all.
      waiting: requests that a rate limit or a back-off holds back.
    """

    in_flight: int = 0
    retries: int = 0
    waiting: int = 0


OnResults = Callable[[Mapping[int, GenerationResult]], None]


class TextGenerator(Protocol):
    """Answers requests.

    Attributes:
      name: identity of model and template; equal names promise equal answers to equal requests, as far as the backend
        can promise that at all. It is part of every journal key.
      activity: what is going on.
    """

    name: str
    activity: Activity

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests.

        Args:
          requests: what to answer, in any number; they may be found only when they are looked at, in this thread.
          on_results: called in this thread with {index into requests: answer}, each index exactly once, in any order,
            as soon as answers exist. If it raises, generation stops and the error passes through: `StopAskingError`
            after what is under way has come home, any other error at once.

        Raises:
          GenerationError: the rest cannot be answered; all answers up to then have been reported.
        """


def estimate_tokens(text: str) -> int:
    """Returns about how many tokens `text` has, without a tokenizer: one for every four bytes of UTF-8, rounded up.

    That is OpenAI's own rule of thumb for English. Code has more, about one for every three; scripts such as Chinese
    have fewer bytes a token. Good for rate limits and for the estimate of a dry run, not for a bill.
    """
    return -(-len(text.encode("utf-8")) // 4)
