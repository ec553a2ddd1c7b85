"""The local generator answers messages as evolve asks for them, each as if it were alone."""

from pathlib import Path

import pytest

from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.sample.generator import LocalGenerator


@pytest.fixture(scope="module")
def generator(checkpoint: Path) -> LocalGenerator:
    return LocalGenerator(checkpoint, "chatml", batch_size=4, max_prompt_tokens=60)


def ask(prompt: str, seed: int = 0, max_new_tokens: int = 12) -> GenerationRequest:
    return GenerationRequest(prompt, seed, max_new_tokens, temperature=0.9, top_p=0.95)


def answers(generator: LocalGenerator, requests: list[GenerationRequest]) -> list[GenerationResult]:
    results: dict[int, GenerationResult] = {}
    generator.generate_all(requests, results.update)
    return [results[index] for index in range(len(requests))]


def test_an_answer_does_not_depend_on_the_other_requests(generator: LocalGenerator):
    watched = ask("Write a sum.", seed=11)
    alone = answers(generator, [watched])
    together = answers(generator, [ask("Sort."), watched, ask("def add(first, second):", max_new_tokens=40)])
    assert together[1] == alone[0]
    assert alone[0].new_tokens in range(1, 13)
    assert alone[0].prompt_tokens > 10


def test_a_prompt_that_does_not_fit_is_answered_with_its_reason(generator: LocalGenerator):
    short, long, too_many = answers(generator, [ask("Sort."), ask("sort " * 60), ask("Sort.", max_new_tokens=512)])
    assert short.finish_reason in ("stop", "length")
    for refused in (long, too_many):
        assert (refused.text, refused.finish_reason, refused.new_tokens) == ("", "context_length", 0)


def test_a_caller_that_has_enough_leaves_the_engine_free(generator: LocalGenerator):
    def enough(results: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate_all([ask("Sort.", max_new_tokens=200), ask("Add.", max_new_tokens=2)], enough)
    assert answers(generator, [ask("Sort.", seed=1)])[0].new_tokens > 0


def test_no_requests_give_no_answers(generator: LocalGenerator):
    assert answers(generator, []) == []
