"""The local JAX model as a text generator.

Requests are cut into batches in their order. After a kill the journal holds whole batches, so a restart forms the same
batches again; and even where a batch was journaled in part, the sampler promises that a row's text does not depend on
the other rows, because every batch has the same shape. The sampler is found by name and only when first needed, so this
package neither imports it nor JAX.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol

from jaxwiz import files
from jaxwiz.llm.config import JaxBackend
from jaxwiz.llm.protocol import Activity, GenerationError, GenerationRequest, GenerationResult, OnResults

SAMPLER = "jaxwiz.sample.generator:LocalGenerator"


class BatchSampler(Protocol):
    """What the sampler must offer."""

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """Returns the answers to at most `batch_size` requests, in their order."""


class JaxGenerator:
    """Answers with a checkpoint of ours, batch by batch.

    Attributes:
      name: hash of the checkpoint's description, with the template and the shapes, on which last bits depend. The
        contents of the weights are guarded by the step's fingerprint; hashing gigabytes here as well would be waste.
    """

    def __init__(self, config: JaxBackend, sampler: BatchSampler | None = None) -> None:
        description = config.checkpoint / "model.json"
        if not description.is_file():
            raise GenerationError(
                f"generator.checkpoint = '{config.checkpoint}': holds no model.json, so it is no jaxwiz checkpoint; "
                "make one with `jaxwiz convert`"
            )
        shape = f"{config.batch_size}x{config.max_prompt_tokens}"
        self.name = f"jax:{files.sha256_of_file(description)[:16]}:{config.template}:{shape}"
        self._config = config
        self.activity = Activity()
        self._sampler = sampler

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests in batches of `batch_size`; see `TextGenerator`."""
        if not requests:
            return
        sampler = self._loaded_sampler()
        for start in range(0, len(requests), self._config.batch_size):
            batch = requests[start : start + self._config.batch_size]
            results = sampler.generate_batch(batch)
            on_results({start + row: result for row, result in zip(range(len(batch)), results, strict=True)})

    def _loaded_sampler(self) -> BatchSampler:
        if self._sampler is None:
            module, _, name = SAMPLER.partition(":")
            sampler_class = getattr(importlib.import_module(module), name)
            self._sampler = sampler_class(
                self._config.checkpoint,
                self._config.template,
                self._config.batch_size,
                self._config.max_prompt_tokens,
            )
        return self._sampler
