"""The local model as a generator of answers to user messages: what the evolve stage calls.

Stages do not import each other, so evolve finds this class by name. A request's answer depends on the request, the
checkpoint and `batch_size`, not on the other requests of its batch.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.sample.engine import Request, load_engine
from jaxwiz.sample.prompts import Prompter


class LocalGenerator:
    """Answers user messages with a checkpoint, each message wrapped in an instruction template."""

    def __init__(self, checkpoint: Path, template: str, batch_size: int, max_prompt_tokens: int) -> None:
        """Loads the checkpoint.

        Args:
          checkpoint: a checkpoint folder.
          template: name of an instruction template, or "none".
          batch_size: rows generated at once.
          max_prompt_tokens: longest prompt, template included; longer ones are answered with "context_length".

        Raises:
          UserError: no checkpoint, no usable tokenizer, or no such template.
        """
        self._engine = load_engine(checkpoint, template, batch_size)
        self._prompter = Prompter(self._engine.tokenizer, template)
        self._max_prompt_tokens = max_prompt_tokens

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """Returns the answers to at most `batch_size` requests, in order.

        A prompt that is too long, by itself or for the model together with its answer, gets an empty answer with
        finish reason "context_length".
        """
        prompts = self._prompter.encode_instructions([request.prompt for request in requests])
        results = [GenerationResult("", "context_length", len(prompt), 0) for prompt in prompts]
        fitting = [row for row, prompt in enumerate(prompts) if self._fits(prompt, requests[row])]
        answers = self._engine.generate([self._engine_request(prompts[row], requests[row]) for row in fitting])
        for row, answer in zip(fitting, answers, strict=True):
            results[row] = GenerationResult(answer.text, answer.finish_reason, len(prompts[row]), len(answer.tokens))
        return results

    def _fits(self, prompt: list[int], request: GenerationRequest) -> bool:
        positions = self._engine.config.context_length
        return len(prompt) <= self._max_prompt_tokens and len(prompt) + request.max_new_tokens <= positions

    def _engine_request(self, prompt: list[int], request: GenerationRequest) -> Request:
        return Request(
            prompt,
            request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=(*self._prompter.end_texts, *request.stop),
        )
