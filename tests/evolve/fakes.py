"""A generator that is a pure function of the request, and small pools for it to evolve."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxwiz.evolve.config import CallConfig, CallsConfig, EliminateConfig, EvolveConfig
from jaxwiz.llm.config import ReplayBackend
from jaxwiz.llm.protocol import Activity, GenerationRequest, GenerationResult, OnResults
from jaxwiz.llm.recording import request_key
from tests.evolve.test_operations import HARD_TEXTS

OPERATIONS = {"in_depth/deepen": 1.0, "in_depth/concretize": 1.0, "in_breadth/rarer_topic": 1.0}
Reply = Callable[[GenerationRequest], GenerationResult]


def fate(request: GenerationRequest) -> int:
    """Returns 0 to 11, decided by prompt and seed."""
    return hashlib.sha256(f"{request.seed}{request.prompt}".encode()).digest()[0] % 12


def moody(request: GenerationRequest) -> GenerationResult:
    """Answers in every way, good and bad, that the elimination rules tell apart; each is decided by the request."""
    number = fate(request)
    if "Reply with your verdict" in request.prompt:
        text = ("Equal", "Hard to say", "Not Equal")[min(number, 2)]
        return GenerationResult(text, "stop", len(request.prompt), 2)
    if number == 0:
        return GenerationResult("half of", "length", len(request.prompt), 5)
    if number == 1:
        return GenerationResult("Sorry, this is the Rewritten Prompt.", "stop", len(request.prompt), 6)
    text = f"Task or answer {request.seed} \r\n{{}} <b> & %s `t`\tto 20. {len(request.prompt)}"
    return GenerationResult(text, "stop", len(request.prompt), 9)


class FakeGenerator:
    """Answers in reverse order, several at a time, and remembers the keys of what it was asked."""

    name = "fake"

    def __init__(self, reply: Reply = moody) -> None:
        self.reply = reply
        self.activity = Activity()
        self.requests: list[GenerationRequest] = []
        self.phases = 0

    @property
    def keys(self) -> list[str]:
        return [request_key(self.name, request) for request in self.requests]

    def generate_all(self, requests: Sequence[GenerationRequest], on_results: OnResults) -> None:
        self.phases += 1
        for start in reversed(range(0, len(requests), 2)):
            chunk = requests[start : start + 2]
            self.requests += chunk
            on_results({start + row: self.reply(request) for row, request in enumerate(chunk)})


def write_seeds(path: Path, count: int = 7) -> Path:
    """Writes seeds with hard texts; every third has an input, every second an output."""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            row = {"instruction": f"Task {number}: {HARD_TEXTS[number % len(HARD_TEXTS)]}", "category": "ignored"}
            row |= {"input": "1,2\r\n3"} if number % 3 == 0 else {}
            row |= {"output": f"answer {number}"} if number % 2 else {}
            file.write(json.dumps(row) + "\n")
    return path


def config_for(folder: Path, **changes) -> EvolveConfig:
    """Returns a config over the seeds of `write_seeds`; the backend is replaced by the tests."""
    seeds = folder / "seeds.jsonl"
    if not seeds.exists():
        write_seeds(seeds)
    fields = {
        "out": folder / "out",
        "seeds": seeds,
        "generator": ReplayBackend(path=seeds),
        "operations": OPERATIONS,
        "rounds": 3,
        "calls": CallsConfig(evolve=CallConfig(max_new_tokens=64), answer=CallConfig(max_new_tokens=65)),
        "eliminate": EliminateConfig(decontaminate=()),
    }
    return EvolveConfig(**{**fields, **changes})
