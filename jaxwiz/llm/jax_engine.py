"""The local JAX model as a text generator.

Answers are reported as they come. After a kill a restart asks for the rest alone, which makes no difference: the
sampler promises that an answer does not depend on the other requests. The sampler is found by name and only when first
needed, so this package neither imports it nor JAX.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol

from jaxwiz import files
from jaxwiz.llm.config import JaxBackend
from jaxwiz.llm.protocol import Activity, GenerationError, GenerationRequest, OnResults

SAMPLER = "jaxwiz.sample.generator:LocalGenerator"


class Sampler(Protocol):
    """What the sampler must offer."""

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        """Answers all requests; see `TextGenerator`."""


class JaxGenerator:
    """Answers with a checkpoint of ours.

    Attributes:
      name: hash of the checkpoint's description, with the template and the shapes, on which last bits depend. The
        contents of the weights are guarded by the step's fingerprint; hashing gigabytes here as well would be waste.
    """

    def __init__(self, config: JaxBackend, sampler: Sampler | None = None) -> None:
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
        """Answers all requests; see `TextGenerator`."""
        if requests:
            self._loaded_sampler().generate_all(requests, on_results)

    def _loaded_sampler(self) -> Sampler:
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
