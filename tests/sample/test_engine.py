"""The engine equals the full forward pass, keeps rows apart, cuts at stop strings exactly, and compiles once."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.decoder import hidden_states, logits
from jaxwiz.model.lora import Adapters
from jaxwiz.model.lora_config import ALL_TARGETS, LoraConfig
from jaxwiz.model.lora_params import init_lora, merge_lora
from jaxwiz.model.params import Params
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request, RequestError
from jaxwiz.text.tokenizer import Tokenizer
from tests.devices import run_on_eight_devices
from tests.sample.conftest import MODEL, SLOTS

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
    long_neighbours = [Request(prompt_of(150, seed), 90, temperature=0.5, seed=seed) for seed in range(SLOTS - 1)]
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
    engine.warm_up()
    assert compilations, "the listener hears the warm-up"
    compilations.clear()
    # Other lengths, other numbers of requests, all settings, arrivals and cancellations in between; another engine.
    engine.generate([Request(prompt_of(length), 40, temperature=0.9, top_k=7, top_p=0.9) for length in (1, 60, 300)])
    engine.generate([Request(prompt_of(33), 2, stop=("a",), logprobs=5, min_p=0.1)] * 9)
    numbers = [engine.submit(Request(prompt_of(n), 50, repetition_penalty=1.2, logit_bias=((3, 1.0),))) for n in (9, 8)]
    engine.step()
    engine.cancel(numbers[0])
    engine.submit(Request(prompt_of(200), 100, ignore_end=True))
    while not engine.idle:
        engine.step()
    assert compilations == []


def test_each_step_reports_tokens_and_finished_answers(make_engine: MakeEngine):
    reports: list[tuple[int, int]] = []
    make_engine().generate(
        [Request(prompt_of(5), 3), Request(prompt_of(6), 20)],
        lambda tokens, finished: reports.append((tokens, finished)),
    )
    assert reports == [(3 + 4, 1), (4, 0), (4, 0), (4, 0), (4, 1)]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], 5), "prompt: is empty"),
        (Request([5], 0), "max_new_tokens = 0"),
        (Request([5] * 500, 13), "513 positions, and the model has 512"),
        (Request([384], 1), "vocabulary of 384"),
        (Request([5], 1, temperature=-1.0, top_p=0.0), "temperature = -1.0: must be at least 0; top_p = 0.0"),
        (Request([5], 1, temperature=float("nan")), "temperature = nan"),
        (Request([5], 1, min_p=1.1, repetition_penalty=0.0, logprobs=21), "min_p = 1.1.*penalty = 0.0.*logprobs = 21"),
        (Request([5], 1, logit_bias=((999, 1.0),)), "logit_bias: token 999"),
        (Request([5], 1, stop=("",)), "stop: holds an empty text"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(make_engine: MakeEngine, request_: Request, message: str):
    engine = make_engine()
    with pytest.raises(RequestError, match=message):
        engine.generate([Request([5], 2), request_])
    assert engine.idle, "none is begun"


def test_a_request_that_the_cache_cannot_hold_is_refused(params: Params, tokenizer: Tokenizer):
    small = Engine(params, MODEL, tokenizer, slots=SLOTS, end_ids=(-2,), cache_tokens=128)
    with pytest.raises(RequestError, match="the cache holds 128"):
        small.submit(Request(prompt_of(100), 29))
    # Two that fit one after the other, not together: the second waits.
    answers = small.generate([Request(prompt_of(90), 30), Request(prompt_of(91), 30)])
    assert [len(answer.tokens) for answer in answers] == [30, 30]
    assert small.statistics().cache_capacity == 128


def test_what_comes_late_or_waits_is_answered_as_if_alone(make_engine: MakeEngine):
    requests = [
        Request(prompt_of(10 + 23 * number), 5 + 7 * number, temperature=0.4 * number, seed=number)
        for number in range(SLOTS * 2)
    ]
    alone = [make_engine().generate([request])[0] for request in requests]
    engine, texts, tokens = make_engine(), {}, {}
    waiting = list(requests)
    while waiting or not engine.idle:
        for request in waiting[:1]:
            number = engine.submit(request)
            texts[number], tokens[number] = "", ()
        waiting = waiting[1:]
        for event in engine.step():
            texts[event.id] += event.text
            tokens[event.id] += event.tokens
    assert [texts[number] for number in sorted(texts)] == [answer.text for answer in alone]
    assert [tokens[number] for number in sorted(tokens)] == [answer.tokens for answer in alone]


def test_long_prompts_are_read_between_the_steps_of_others(make_engine: MakeEngine):
    engine = make_engine()
    first = engine.submit(Request(prompt_of(5), 60))
    engine.step()
    late = [engine.submit(Request(prompt_of(400, seed), 3)) for seed in range(3)]
    told = []
    while not engine.idle:
        told.append({event.id for event in engine.step()})
    assert told[:6] == [{first}, {first, late[0]}, {first}, {first, late[1]}, {first, late[2]}, {first}]
    assert engine.statistics().prompt_tokens == 5 + 3 * 400


def test_a_common_prefix_is_read_once_and_changes_no_bit(make_engine: MakeEngine):
    header = prompt_of(140)
    asked = [Request([*header, *prompt_of(20, seed)], 20, temperature=1.0, seed=seed, logprobs=2) for seed in range(6)]
    alone = [make_engine().generate([request])[0] for request in asked]
    engine = make_engine()
    assert engine.generate(asked) == alone
    assert engine.statistics().shared_tokens == 5 * 128, "whole pages of 64 tokens"
    assert engine.statistics().cache_tokens == 0, "all pages are given back"


def test_a_cancelled_request_says_no_more_and_frees_its_slot(make_engine: MakeEngine):
    engine = make_engine()
    numbers = [engine.submit(Request(prompt_of(20, seed), 200)) for seed in range(SLOTS + 1)]
    assert {event.id for event in engine.step()} == set(numbers[:SLOTS])
    assert (engine.waiting, engine.statistics().slots_used) == (1, SLOTS)
    engine.cancel(numbers[0])
    assert {event.id for event in engine.step()} == set(numbers[1:])
    for number in numbers:
        engine.cancel(number)
    assert engine.idle
    assert engine.statistics().cache_tokens == 0


def test_log_probabilities_are_the_models_own(params: Params, make_engine: MakeEngine):
    prompt = prompt_of(70)
    answer = make_engine().generate([Request(prompt, 12, temperature=3.0, top_k=50, seed=1, logprobs=4)])[0]
    whole = jnp.array([[*prompt, *answer.tokens]])
    hidden = hidden_states(params, MODEL, whole, jnp.arange(whole.shape[1])[None])
    expected = np.asarray(jax.nn.log_softmax(logits(params, MODEL, hidden))[0, len(prompt) - 1 : -1])
    for place, (token, found) in enumerate(zip(answer.tokens, answer.logprobs, strict=True)):
        assert found.logprob == pytest.approx(expected[place, token], abs=2e-4)
        assert [index for index, _ in found.top] == np.argsort(-expected[place])[:4].tolist()
        assert [value for _, value in found.top] == pytest.approx(sorted(expected[place])[:-5:-1], abs=2e-4)
    scores = make_engine().score(prompt, answer.tokens)
    assert scores == pytest.approx([found.logprob for found in answer.logprobs], abs=2e-4)


def test_scoring_needs_a_continuation_of_known_ids(make_engine: MakeEngine):
    engine = make_engine()
    for continuation in ([], [MODEL.vocab_size]):
        with pytest.raises(RequestError, match="continuation"):
            engine.score([5], continuation)
    with pytest.raises(RequestError, match="prompt: is empty"):
        engine.score([], [5])


def test_rows_that_pad_the_vocabulary_are_never_drawn(params: Params, tokenizer: Tokenizer):
    engine = Engine(params, MODEL, tokenizer, slots=SLOTS, end_ids=(-2,), vocab_size=100)
    answers = engine.generate([Request([5, 6], 200, temperature=50.0, seed=seed) for seed in range(2)])
    assert max(max(answer.tokens) for answer in answers) == 99


def test_an_end_token_can_be_ignored(make_engine: MakeEngine):
    free = make_engine().generate([Request(prompt_of(6), 40)])[0]
    assert make_engine(end_ids=(free.tokens[20],)).generate([Request(prompt_of(6), 40, ignore_end=True)])[0] == free


MESH_PROGRAM = """
import dataclasses
import jax, numpy as np
from jaxwiz.model.params import init_params
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.requests import Request
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from tests.sample.conftest import MODEL
from decoding import NoText

requests = [
    Request(np.random.default_rng(length).integers(3, MODEL.vocab_size, length).tolist(), 12, logprobs=2)
    for length in (5, 70, 20, 9)
]
tied, slots, sizes = SETTINGS
model = dataclasses.replace(MODEL, tie_embeddings=tied)
params = jax.tree.map(lambda leaf: leaf * 8, init_params(model, jax.random.key(1)))
alone = Engine(params, model, NoText(), slots=slots).generate(requests)
split = Engine(params, model, NoText(), slots=slots, mesh=make_mesh(MeshConfig(**sizes)))
for one, other in zip(alone, split.generate(requests), strict=True):
    assert one.tokens == other.tokens
    for ours, theirs in zip(one.logprobs, other.logprobs, strict=True):
        np.testing.assert_allclose(ours.logprob, theirs.logprob, atol=1e-3)
"""


@pytest.mark.parametrize(
    "settings",
    [
        (True, 4, {"data": 2, "fsdp": 2, "tensor": 2}),
        # A head that is not the embedding, and slots that the devices do not divide.
        pytest.param((False, 3, {"fsdp": 4, "tensor": 2}), marks=pytest.mark.multiprocess),
    ],
    ids=str,
)
def test_greedy_tokens_are_the_same_on_a_mesh(settings: tuple):
    program = MESH_PROGRAM.replace("SETTINGS", repr(settings))
    run_on_eight_devices("-c", "import sys; sys.path += ['.', 'tests/golden']\n" + program)


def test_adapters_beside_the_weights_answer_as_if_merged(params: Params, tokenizer: Tokenizer):
    lora = LoraConfig(rank=3, targets=ALL_TARGETS)
    leaves, tree = jax.tree.flatten(init_lora(MODEL, lora, jax.random.key(5)))
    keys = jax.random.split(jax.random.key(6), len(leaves))
    factors = jax.tree.unflatten(
        tree, [jax.random.normal(key, leaf.shape) * 0.2 for key, leaf in zip(keys, leaves, strict=True)]
    )
    merged = Engine(merge_lora(params, factors, lora), MODEL, tokenizer, slots=SLOTS, end_ids=(-2,))
    beside = Engine(params, MODEL, tokenizer, slots=SLOTS, end_ids=(-2,), adapters=Adapters(factors, lora))
    bare = Engine(params, MODEL, tokenizer, slots=SLOTS, end_ids=(-2,))
    prompt, answer = prompt_of(64), prompt_of(12, seed=1)
    assert beside.score(prompt, answer) == pytest.approx(merged.score(prompt, answer), abs=1e-3)
    assert beside.score(prompt, answer) != pytest.approx(bare.score(prompt, answer), abs=0.1)
    request = Request(prompt, 20)
    assert beside.generate([request])[0].tokens == merged.generate([request])[0].tokens
