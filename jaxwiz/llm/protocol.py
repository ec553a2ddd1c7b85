"""What every text generator is: something that answers a list of requests and reports answers as they come.

The protocol is synchronous and takes all requests of a phase at once, since that is the one form that suits all kinds
of backend: an endpoint client keeps N of them in flight inside its own event loop, the local engine cuts them into
fixed batches, and a batch API would write them to one file. Answers are reported through a callback as soon as they
exist, several at a time where they arrive together, so that the caller can make them durable with one write.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from jaxwiz.files import UserError


class GenerationError(UserError):
    """The generator cannot go on (no credit, wrong key, no connection). What was answered before has been reported."""


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class GenerationResult:
    """One answer.

    Attributes:
      text: what the model wrote, without control tokens and without the stop text.
      finish_reason: "stop" (it ended by itself), "length" (cut at max_new_tokens), "content_filter", or
        "context_length" (the prompt does not fit, so nothing was generated); endpoints may have more.
      prompt_tokens: tokens of the prompt as the model saw it; 0 where unknown.
      new_tokens: generated tokens; 0 where unknown.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


OnResults = Callable[[Mapping[int, GenerationResult]], None]


class TextGenerator(Protocol):
    """Answers requests.

    Attributes:
      name: identity of model and template; equal names promise equal answers to equal requests, as far as the backend
        can promise that at all. It is part of every journal key.
    """

    name: str

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests.

        Args:
          requests: what to answer, in any number.
          on_results: called in this thread with {index into requests: answer}, each index exactly once, in any order,
            as soon as answers exist. If it raises, generation stops and the error passes through.

        Raises:
          GenerationError: the rest cannot be answered; all answers up to then have been reported.
        """
