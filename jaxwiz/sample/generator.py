"""The local model as a generator of answers to user messages: what the evolve stage calls.

Stages do not import each other, so evolve finds this class by name. A request's answer depends on the request and the
checkpoint, not on the other requests.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.sample.load import load_engine
from jaxwiz.sample.prompts import Prompter
from jaxwiz.sample.requests import Request, TokenEvent, joined

OnResults = Callable[[Mapping[int, GenerationResult]], None]


class LocalGenerator:
    """Answers user messages with a checkpoint, each message wrapped in an instruction template."""

    def __init__(self, checkpoint: Path, template: str, batch_size: int, max_prompt_tokens: int) -> None:
        """Loads the checkpoint.

        Args:
          checkpoint: a checkpoint folder.
          template: name of an instruction template, or "none".
          batch_size: answers under way at once.
          max_prompt_tokens: longest prompt, template included; longer ones are answered with "context_length".

        Raises:
          UserError: no checkpoint, no usable tokenizer, or no such template.
        """
        self._engine = load_engine(checkpoint, template, batch_size)
        self._prompter = Prompter(self._engine.tokenizer, template)
        self._max_prompt_tokens = max_prompt_tokens

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests and reports {index: answer} of those that a step of the engine finished.

        A prompt that is too long, by itself or for the model together with its answer, gets an empty answer with
        finish reason "context_length". If `on_results` raises, what is under way is dropped.
        """
        prompts = self._prompter.encode_instructions([request.prompt for request in requests])
        fits = [self._fits(prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
        refused = {
            index: GenerationResult("", "context_length", len(prompt), 0)
            for index, prompt in enumerate(prompts)
            if not fits[index]
        }
        if refused:
            on_results(refused)
        asked = {index: self._request(prompts[index], requests[index]) for index, fit in enumerate(fits) if fit}
        self._engine.reserve([len(request.prompt) + request.max_new_tokens for request in asked.values()])
        index_of = {self._engine.submit(request): index for index, request in asked.items()}
        parts: dict[int, list[TokenEvent]] = {key: [] for key in index_of}
        try:
            while not self._engine.idle:
                finished = {}
                for event in self._engine.step():
                    parts[event.id].append(event)
                    if event.finish_reason:
                        index, answer = index_of[event.id], joined(parts.pop(event.id))
                        finished[index] = GenerationResult(
                            answer.text, answer.finish_reason, len(prompts[index]), len(answer.tokens)
                        )
                if finished:
                    on_results(finished)
        finally:
            for key in parts:
                self._engine.cancel(key)

    def _fits(self, prompt: list[int], request: GenerationRequest) -> bool:
        positions = self._engine.config.context_length
        return len(prompt) <= self._max_prompt_tokens and len(prompt) + request.max_new_tokens <= positions

    def _request(self, prompt: list[int], request: GenerationRequest) -> Request:
        return Request(
            prompt,
            request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=(*self._prompter.end_texts, *request.stop),
        )
