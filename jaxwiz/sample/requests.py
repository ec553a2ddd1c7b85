"""What is asked of the engine and what it answers, told by whole requests and by the events of a step.

Plain values without JAX, so that servers and stages can make and read them. A request says everything that its result
depends on, beside the weights: the same request gives the same answer whatever else the engine does at the time.
"""

import dataclasses
from collections.abc import Sequence

from jaxwiz.files import UserError

MAX_LOGIT_BIASES = 300  # tokens of one request; what the OpenAI protocol allows
MAX_TOP_LOGPROBS = 20

Finish = str  # "stop": end token or stop string; "length": cut at max_new_tokens; "cancelled"; "": not finished


class RequestError(UserError):
    """A request that this engine cannot answer; the message names field, value, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt to answer.

    A token is drawn so: add `logit_bias`, apply `repetition_penalty` (arXiv 1909.05858: logits of tokens in prompt and
    answer so far are divided by it where positive, multiplied where negative), divide by `temperature`, keep `top_k`,
    then `top_p`, then `min_p`, draw from what is left.

    Attributes:
      prompt: its ids, at least one.
      max_new_tokens: most tokens of the answer, at least 1; the end token counts.
      temperature: 0 takes the most probable token.
      top_k: draw from that many most probable tokens; 0: all.
      top_p: draw from the most probable tokens that together reach this probability; 1: all.
      min_p: draw only from tokens at least this times as probable as the most probable one; 0: all.
      repetition_penalty: above 0; 1 changes nothing.
      logit_bias: (token id, what is added to its logit), at most `MAX_LOGIT_BIASES`.
      seed: in [0, 2**64); with prompt and settings it fixes the answer.
      stop: texts that end the answer and are no part of it.
      logprobs: None: none are wanted; n: of each token drawn, and of the n most probable ones at its place, at most
        `MAX_TOP_LOGPROBS`. They are the model's own: log-softmax of its logits before bias, penalty and temperature.
      ignore_end: whether end tokens are tokens as all others, so that only `max_new_tokens` and `stop` end the answer.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_end: bool = False


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """Log-probabilities at one place of an answer.

    Attributes:
      logprob: of the token that stands there, in nats.
      top: (token id, logprob) of the most probable tokens, as many as were asked for, most probable first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class TokenEvent:
    """What one step of the engine added to one request.

    Attributes:
      id: as `Engine.submit` returned it.
      tokens: new token ids, in order; the end token is the last one where it ends the answer.
      text: new text that is certain: no half character, nothing that may yet turn out to begin a stop string. All
        texts of a request, in order, are its answer's text.
      logprobs: one for each of `tokens` where the request asks for them, else empty.
      finish_reason: "" as long as more will come, else why this was the last event; see `Finish`.
    """

    id: int
    tokens: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: Finish = ""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was generated for one request.

    Attributes:
      text: the answer, without control tokens and cut before the stop string.
      tokens: the ids generated, up to and with the end token or the token that completed the stop string.
      finish_reason: "stop" or "length".
      logprobs: one for each of `tokens` where the request asks for them, else empty.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: Finish
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The engine's counters since it was made, and its state at the moment.

    Attributes:
      slots: requests that can be under way at once.
      slots_used: how many are.
      waiting: requests that wait for a slot.
      cache_tokens: tokens of keys and values held for requests under way.
      cache_capacity: tokens that the cache has room for at its present length.
      prompt_tokens: of all requests admitted, those taken from another request's prefix included.
      shared_tokens: prompt tokens whose keys and values were copied from another request instead of computed.
      new_tokens: generated.
      finished: requests, by any reason.
      busy_seconds: spent in `step`; new_tokens over it is the speed, in tokens/s.
    """

    slots: int
    slots_used: int
    waiting: int
    cache_tokens: int
    cache_capacity: int
    prompt_tokens: int
    shared_tokens: int
    new_tokens: int
    finished: int
    busy_seconds: float


def joined(events: Sequence[TokenEvent]) -> Answer:
    """Returns the answer that all events of one request, in order, make up."""
    return Answer(
        "".join(event.text for event in events),
        tuple(token for event in events for token in event.tokens),
        events[-1].finish_reason,
        tuple(logprob for event in events for logprob in event.logprobs),
    )


def require_answerable(request: Request, vocab_size: int, positions: int) -> None:
    """Returns if a model of this vocabulary and context can answer the request.

    Raises:
      RequestError: with all that stands against it.
    """
    faults = []
    if not request.prompt:
        faults.append("prompt: is empty; give at least one token")
    elif min(request.prompt) < 0 or max(request.prompt) >= vocab_size:
        faults.append(f"prompt: holds ids outside the model's vocabulary of {vocab_size}; use its tokenizer")
    needed = len(request.prompt) + request.max_new_tokens
    if request.max_new_tokens < 1:
        faults.append(f"max_new_tokens = {request.max_new_tokens}: must be at least 1")
    elif needed > positions:
        faults.append(
            f"max_new_tokens = {request.max_new_tokens}: with the prompt of {len(request.prompt)} tokens that is "
            f"{needed} positions, and the model has {positions}; lower it or shorten the prompt"
        )
    ranges = (
        ("temperature", 0 <= request.temperature < float("inf"), "must be at least 0"),
        ("top_k", 0 <= request.top_k < 2**31, "must be at least 0"),
        ("top_p", 0 < request.top_p <= 1, "must be above 0 and at most 1"),
        ("min_p", 0 <= request.min_p <= 1, "must be from 0 to 1"),
        ("repetition_penalty", 0 < request.repetition_penalty < float("inf"), "must be above 0"),
        ("seed", 0 <= request.seed < 2**64, "must be from 0 to 2**64 - 1"),
        ("logprobs", 0 <= (request.logprobs or 0) <= MAX_TOP_LOGPROBS, f"must be from 0 to {MAX_TOP_LOGPROBS}"),
    )
    faults += [f"{name} = {getattr(request, name)}: {rule}" for name, holds, rule in ranges if not holds]
    if "" in request.stop:
        faults.append("stop: holds an empty text; leave it out")
    if len(request.logit_bias) > MAX_LOGIT_BIASES:
        faults.append(f"logit_bias: {len(request.logit_bias)} tokens, at most {MAX_LOGIT_BIASES}; leave some out")
    outside = [token for token, _ in request.logit_bias if not 0 <= token < vocab_size]
    if outside:
        faults.append(f"logit_bias: token {outside[0]} is outside the model's vocabulary of {vocab_size}")
    if not all(abs(bias) <= 1e4 for _, bias in request.logit_bias):
        faults.append("logit_bias: biases must be numbers from -10000 to 10000")
    if faults:
        raise RequestError("; ".join(faults))
