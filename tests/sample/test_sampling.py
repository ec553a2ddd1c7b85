"""Filters as small literal examples; draws follow the analytic distribution and depend on seed and place only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.sample.sampling import (
    SamplingRows,
    adjusted,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    seed_words,
)
from jaxwiz.sample.sampling import sample_tokens as sample_tokens_beside


def rows(
    batch: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    penalty: float = 1.0,
    bias: tuple[tuple[int, float], ...] = (),
    seeds: list[int] | None = None,
):
    return SamplingRows(
        min_p=jnp.full(batch, min_p, jnp.float32),
        penalty=jnp.full(batch, penalty, jnp.float32),
        bias_ids=jnp.tile(jnp.array([*[token for token, _ in bias], 10**6], jnp.int32), (batch, 1)),
        biases=jnp.tile(jnp.array([*[added for _, added in bias], 9.0], jnp.float32), (batch, 1)),
        temperature=jnp.full(batch, temperature, jnp.float32),
        top_k=jnp.full(batch, top_k, jnp.int32),
        top_p=jnp.full(batch, top_p, jnp.float32),
        seeds=jnp.asarray(seed_words(seeds or list(range(batch)))),
    )


def sample_tokens(logits: jax.Array, settings: SamplingRows, positions: jax.Array) -> jax.Array:
    return sample_tokens_beside(logits, settings, positions, jnp.zeros(logits.shape, bool))


def test_top_k_keeps_the_k_most_probable_and_ties_of_the_last():
    probabilities = jnp.array([[0.1, 0.4, 0.2, 0.3]] * 4 + [[0.25, 0.25, 0.4, 0.1]])
    expected = [
        [0.1, 0.4, 0.2, 0.3],
        [0.0, 0.4, 0.0, 0.0],
        [0.0, 0.4, 0.0, 0.3],
        [0.1, 0.4, 0.2, 0.3],
        [0.25, 0.25, 0.4, 0.0],
    ]
    np.testing.assert_array_equal(keep_top_k(probabilities, jnp.array([0, 1, 2, 9, 2])), np.float32(expected))


def test_top_p_keeps_the_smallest_set_that_reaches_its_share():
    probabilities = jnp.array([[0.125, 0.5, 0.25, 0.125]] * 5 + [[0.0, 0.25, 0.125, 0.125]])
    expected = [
        [0.125, 0.5, 0.25, 0.125],  # 1 keeps all
        [0.0, 0.5, 0.0, 0.0],  # the most probable token stays however small the share
        [0.0, 0.5, 0.0, 0.0],  # reached exactly
        [0.0, 0.5, 0.25, 0.0],
        [0.125, 0.5, 0.25, 0.125],  # a tie at the threshold is kept whole
        [0.0, 0.25, 0.0, 0.0],  # the share of a row that sums to 0.5
    ]
    top_p = jnp.array([1.0, 0.01, 0.5, 0.75, 0.8, 0.5])
    np.testing.assert_array_equal(keep_top_p(probabilities, top_p), np.float32(expected))


def test_draw_takes_the_token_that_holds_the_share_and_never_an_impossible_one():
    probabilities = jnp.array([[0.0, 0.25, 0.0, 0.25, 0.5, 0.0]] * 5)
    uniform = jnp.array([0.0, 0.2, 0.25, 0.6, 0.9999999])
    assert draw(probabilities, uniform).tolist() == [1, 1, 3, 4, 4]


def test_temperature_0_is_greedy_also_beside_rows_that_draw():
    logits = jax.random.normal(jax.random.key(0), (6, 50))
    greedy = rows(6, temperature=0.0)
    positions = jnp.zeros(6, jnp.int32)
    best = jnp.argmax(logits, -1).tolist()
    assert sample_tokens(logits, greedy, positions).tolist() == best
    mixed = greedy._replace(temperature=jnp.array([0.0, 5.0, 0.0, 5.0, 0.0, 5.0]))
    assert sample_tokens(logits, mixed, positions).tolist()[::2] == best[::2]


def test_the_least_temperature_takes_the_most_probable_token():
    logits = jax.random.normal(jax.random.key(0), (6, 50)) * 1e4
    best = jnp.argmax(logits, -1).tolist()
    for temperature in (1e-45, 1e-38, 1e-6):
        assert sample_tokens(logits, rows(6, temperature), jnp.zeros(6, jnp.int32)).tolist() == best


def test_min_p_keeps_what_is_not_far_below_the_most_probable():
    probabilities = jnp.array([[0.5, 0.25, 0.125, 0.125]] * 3)
    expected = [[0.5, 0.25, 0.125, 0.125], [0.5, 0.25, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(keep_min_p(probabilities, jnp.array([0.25, 0.5, 1.0])), np.float32(expected))


def test_bias_is_added_and_the_penalty_makes_tokens_seen_less_likely():
    logits = jnp.array([[2.0, -2.0, 1.0, 4.0]])
    seen = jnp.array([[True, True, False, False]])
    settings = rows(1, penalty=2.0, bias=((0, 1.0), (3, -100.0)))
    np.testing.assert_array_equal(adjusted(logits, settings, seen), np.float32([[1.5, -4.0, 1.0, -96.0]]))
    np.testing.assert_array_equal(adjusted(logits, rows(1), seen), logits)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 5},
        {"top_p": 0.8},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9},
        {"temperature": 1.2, "min_p": 0.1},
        {"penalty": 1.5, "bias": ((3, 2.0), (7, -1.0)), "top_p": 0.95},
    ],
)
def test_drawn_tokens_follow_the_analytic_distribution(settings: dict):
    draws, vocabulary = 8192, 12
    logits = np.random.default_rng(3).normal(size=vocabulary).astype(np.float32) * 1.5
    seen = np.arange(vocabulary) < 4
    everywhere = jnp.broadcast_to(logits, (draws, vocabulary)), jnp.broadcast_to(seen, (draws, vocabulary))
    tokens = sample_tokens_beside(everywhere[0], rows(draws, **settings), jnp.full(draws, 17), everywhere[1])
    expected = analytic(logits, seen, **settings)
    counts = np.bincount(np.asarray(tokens), minlength=vocabulary)
    assert not counts[expected == 0].any()
    kept = expected > 0
    chi_square = float(((counts - draws * expected)[kept] ** 2 / (draws * expected[kept])).sum())
    # 99.99% quantiles of chi-square for 1 to 11 degrees of freedom.
    quantiles = [15.1, 18.4, 21.1, 23.5, 25.7, 27.9, 29.9, 31.8, 33.7, 35.6, 37.4]
    assert chi_square < quantiles[int(kept.sum()) - 2]


def analytic(
    logits: np.ndarray,
    seen: np.ndarray,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    penalty: float = 1.0,
    bias: tuple[tuple[int, float], ...] = (),
) -> np.ndarray:
    """The distribution by its definition: change logits, sort, keep, divide by what is left."""
    logits = logits.astype(np.float64)
    for token, added in bias:
        logits[token] += added
    logits = np.where(seen, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities)
    keep = order[: top_k or len(order)]
    probabilities[np.setdiff1d(order, keep)] = 0
    probabilities /= probabilities.sum()
    reached = np.cumsum(probabilities[order])
    probabilities[order[int(np.searchsorted(reached, top_p)) + 1 :]] = 0
    probabilities[probabilities < min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


def test_a_draw_depends_on_seed_and_position_only():
    logits = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (300,)), (64, 300))
    seeds = [7] * 32 + [2**32 + 7] * 32
    positions = jnp.array(list(range(32)) * 2)
    tokens = np.asarray(sample_tokens(logits, rows(64, seeds=seeds), positions))
    alone = [int(sample_tokens(logits[:1], rows(1, seeds=[7]), positions[row : row + 1])[0]) for row in range(3)]
    assert tokens[:3].tolist() == alone
    assert len(set(tokens[:32].tolist())) > 16, "positions give different draws"
    assert (tokens[:32] != tokens[32:]).sum() > 16, "the high word of the seed counts"
