"""From a backend's config to its generator; each backend's imports happen only when it is chosen."""

from pathlib import Path

from jaxwiz.llm.config import BackendConfig, JaxBackend, OpenAIBackend, OpenAIBatchBackend, ReplayBackend
from jaxwiz.llm.protocol import TextGenerator


def make_generator(config: BackendConfig, work: Path) -> TextGenerator:
    """Returns the generator that `config` describes.

    Args:
      config: the backend's section.
      work: a folder for what a backend must remember over a kill; made only if one needs it.

    Raises:
      GenerationError: it cannot be made: no key, no such checkpoint, an empty recording.
    """
    match config:
        case JaxBackend():
            from jaxwiz.llm.jax_engine import JaxGenerator

            return JaxGenerator(config)
        case OpenAIBackend():
            from jaxwiz.llm.openai_client import OpenAIGenerator

            return OpenAIGenerator(config)
        case OpenAIBatchBackend():
            from jaxwiz.llm.openai_batch import OpenAIBatchGenerator

            return OpenAIBatchGenerator(config, work / "batches")
        case ReplayBackend():
            from jaxwiz.llm.replay import ReplayGenerator

            return ReplayGenerator(config.path)
