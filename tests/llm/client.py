"""The endpoint client as the tests use it: over either transport, on a clock that waits in no time."""

from jaxwiz.llm.config import OpenAIBackend
from jaxwiz.llm.openai_client import OpenAIGenerator
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from tests.llm.scripted_server import ScriptedServer
from tests.llm.virtual_clock import VirtualClock

KEY = "sk-a-very-secret-key"


def request(prompt: str, **changes) -> GenerationRequest:
    fields = {"seed": 11, "max_new_tokens": 50, "temperature": 0.5, "top_p": 0.9, **changes}
    return GenerationRequest(prompt, **fields)


class Client:
    """A generator for a scripted server; its clock waits in no time."""

    transport = "openai"

    def __init__(self, server: ScriptedServer, **config) -> None:
        self.results: dict[int, GenerationResult] = {}
        self.clock = VirtualClock()
        backend = OpenAIBackend(
            base_url=server.url, model="m", **{"api_key_env": "TEST_KEY", "transport": self.transport, **config}
        )
        self.generator = OpenAIGenerator(backend, self.clock)
        self.clock.is_busy = lambda: self.generator.activity.in_flight > 0

    @property
    def waits(self) -> list[float]:
        return self.clock.waits

    def ask(self, *requests: GenerationRequest) -> dict[int, GenerationResult]:
        def on_results(results):
            assert not self.results.keys() & results.keys()
            self.results.update(results)

        self.generator.generate_all(requests, on_results)
        return self.results
