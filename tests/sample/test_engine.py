"""The engine equals the full forward pass, keeps rows apart, cuts at stop strings exactly, and compiles once."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.llama import hidden_states, logits
from jaxwiz.model.params import Params
from jaxwiz.sample.engine import Engine, Request, cache_slots
from jaxwiz.text.tokenizer import Tokenizer
from tests.sample.conftest import BATCH, MODEL

MakeEngine = Callable[..., Engine]


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng([seed, length]).integers(3, MODEL.vocab_size, length).tolist()


def greedy_by_full_forward(params: Params, prompt: list[int], new_tokens: int) -> list[int]:
    """Argmax token after token, each from a forward pass over everything before it."""
    width = len(prompt) + new_tokens
    positions = jnp.arange(width)[None]

    @jax.jit
    def all_logits(tokens: jax.Array) -> jax.Array:
        return logits(params, MODEL, hidden_states(params, MODEL, tokens, positions))[0]

    tokens = prompt + [0] * new_tokens
    for place in range(len(prompt), width):
        tokens[place] = int(jnp.argmax(all_logits(jnp.array([tokens]))[place - 1]))
    return tokens[len(prompt) :]


def test_greedy_tokens_are_those_of_the_full_forward_pass(params: Params, make_engine: MakeEngine):
    # Prompts of one chunk and of two; 70 + 62 tokens make the cache grow on the way.
    prompts = [prompt_of(5), prompt_of(64), prompt_of(70)]
    limits = [40, 3, 62]
    answers = make_engine().generate([Request(*pair) for pair in zip(prompts, limits, strict=True)])
    for prompt, limit, answer in zip(prompts, limits, answers, strict=True):
        assert list(answer.tokens) == greedy_by_full_forward(params, prompt, limit)
        assert answer.finish_reason == "length"


def test_a_row_does_not_depend_on_its_batch(make_engine: MakeEngine):
    engine = make_engine()
    watched = Request(prompt_of(9), 30, temperature=1.2, top_p=0.95, seed=5)
    alone = engine.generate([watched])[0]
    long_neighbours = [Request(prompt_of(150, seed), 90, temperature=0.5, seed=seed) for seed in range(BATCH - 1)]
    assert engine.generate([*long_neighbours, watched])[-1] == alone
    assert engine.generate([Request(prompt_of(3), 1), watched])[1] == alone
    other_seed = Request(prompt_of(9), 30, temperature=1.2, top_p=0.95, seed=6)
    assert engine.generate([other_seed])[0] != alone


def test_an_end_token_ends_a_row_and_is_no_part_of_its_text(make_engine: MakeEngine, tokenizer: Tokenizer):
    free = make_engine().generate([Request(prompt_of(6), 40)])[0].tokens
    end = free[20]
    first = free.index(end)
    answer = make_engine(end_ids=(2, end)).generate([Request(prompt_of(6), 40), Request(prompt_of(7), 2)])[0]
    assert answer.finish_reason == "stop"
    assert answer.tokens == free[: first + 1]
    assert answer.text == tokenizer.decode(free[:first], continues=True)


def test_a_stop_string_across_token_borders_is_cut_exactly(make_engine: MakeEngine, tokenizer: Tokenizer):
    request = Request(prompt_of(8), 60, temperature=30.0, seed=3)  # near to uniform, so that readable text comes too
    free = make_engine().generate([request])[0]
    pieces = [tokenizer.decode([token], continues=True) for token in free.tokens]
    # From the last character of one readable token to the first of the third one after it.
    begin = next(n for n in range(17, 56) if all(piece.isascii() and piece for piece in pieces[n : n + 4]))
    stop = pieces[begin][-1] + pieces[begin + 1] + pieces[begin + 2] + pieces[begin + 3][0]
    place = len(tokenizer.decode(free.tokens[: begin + 1], continues=True)) - 1
    assert free.text.find(stop) == place
    stopping = dataclasses.replace(request, stop=("never in it", stop))
    stopped = make_engine().generate([stopping, Request(prompt_of(4), 60)])[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == free.text[:place]
    assert stopped.tokens == free.tokens[: begin + 4], "the token that completes the stop string is the last"


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Collects an entry for every program that XLA compiles."""
    compiled: list[str] = []

    def listen(event: str, duration_s: float, **details: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_is_compiled_after_warm_up(make_engine: MakeEngine, compilations: list[str]):
    jax.clear_caches()
    engine = make_engine()
    engine.generate([Request(prompt_of(10), 20)])
    assert compilations, "the listener hears the warm-up"
    compilations.clear()
    # Other lengths in the same buckets, other numbers of rows, other settings; then another engine on the same model.
    engine.generate([Request(prompt_of(length), 40, temperature=0.9, top_k=7, top_p=0.9) for length in (1, 60)])
    make_engine().generate([Request(prompt_of(33), 2, stop=("a",)) for _ in range(BATCH)])
    assert compilations == []


def test_blocks_report_tokens_and_finished_answers(make_engine: MakeEngine):
    reports: list[tuple[int, int]] = []
    make_engine().generate(
        [Request(prompt_of(5), 3), Request(prompt_of(6), 20)],
        lambda tokens, finished: reports.append((tokens, finished)),
    )
    assert reports == [(2, 0), (2 + 16, 1), (3, 1)]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], 5), "prompt of 0"),
        (Request([5], 0), "max_new_tokens = 0"),
        (Request([5] * 500, 13), "512 positions"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(make_engine: MakeEngine, request_: Request, message: str):
    with pytest.raises(ValueError, match=message):
        make_engine().generate([request_])


def test_the_predicted_cache_covers_the_longest_row():
    assert cache_slots(5, 40) == 128
    assert cache_slots(64, 48) == 128
    assert cache_slots(64, 49) == 256
