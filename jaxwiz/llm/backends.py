"""From a backend's config to its generator; each backend's imports happen only when it is chosen."""

from jaxwiz.llm.config import JaxBackend, OpenAIBackend, ReplayBackend
from jaxwiz.llm.protocol import TextGenerator


def make_generator(config: JaxBackend | OpenAIBackend | ReplayBackend) -> TextGenerator:
    """Returns the generator that `config` describes.

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
        case ReplayBackend():
            from jaxwiz.llm.replay import ReplayGenerator

            return ReplayGenerator(config.path)
