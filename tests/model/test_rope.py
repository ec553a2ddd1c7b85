"""Rotary angles: exact at large positions, scaled as their formulas say, the same whatever shares a row."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.rope import attention_factor, rotate, rotation, static_frequencies
from jaxwiz.model.rope_config import AnyScaling, DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

PLAIN = LlamaConfig(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8,
    max_positions=16,
)  # fmt: skip


def scaled(scaling: AnyScaling) -> LlamaConfig:
    return dataclasses.replace(PLAIN, rope_scaling=scaling)


def test_plain_frequencies_are_powers_of_theta():
    np.testing.assert_allclose(static_frequencies(PLAIN), [1, 1e-1, 1e-2, 1e-3])


def test_linear_scaling_divides_all():
    np.testing.assert_allclose(
        static_frequencies(scaled(LinearScaling(factor=4.0))), np.array([1, 0.1, 0.01, 1e-3]) / 4
    )


def test_llama3_keeps_short_wavelengths_and_divides_long_ones():
    # Turns over 400 positions: 63.7, 6.37, 0.637, 0.0637; kept above 8, divided below 4, halfway between at 6.
    scaling = Llama3Scaling(factor=10.0, low_freq_factor=4.0, high_freq_factor=8.0, original_positions=400)
    share = (400 * 0.1 / (2 * math.pi) - 4) / 4
    expected = [1, 0.1 * (share + (1 - share) / 10), 1e-3, 1e-4]
    np.testing.assert_allclose(static_frequencies(scaled(scaling)), expected)


def test_yarn_keeps_fast_frequencies_and_divides_slow_ones():
    # Over 1,000 positions, dimension d of 4 turns 159 * 10 ** -d times: 10 times at 1.2, once at 2.2.
    scaling = YarnScaling(factor=10.0, original_positions=1000, beta_fast=10.0, beta_slow=1.0, truncate=False)
    low, high = (math.log10(1000 / (2 * math.pi * turns)) for turns in (10, 1))
    divided = (2 - low) / (high - low)
    expected = [1, 0.1, 1e-2 * (1 - divided + divided / 10), 1e-4]
    np.testing.assert_allclose(static_frequencies(scaled(scaling)), expected)
    rounded = static_frequencies(scaled(dataclasses.replace(scaling, truncate=True)))  # from 1 to 3
    np.testing.assert_allclose(rounded, [1, 0.1, 1e-2 * (0.5 + 0.05), 1e-4])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.1 * math.log(8) + 1),
        ({"attention_factor": 1.7}, 1.7),
        ({"mscale": 0.5}, 0.1 * math.log(8) + 1),
        ({"mscale": 0.5, "mscale_all_dim": 2.0}, (0.05 * math.log(8) + 1) / (0.2 * math.log(8) + 1)),
        ({"factor": 1.0}, 1.0),
    ],
)
def test_yarn_attention_factor(changes: dict, expected: float):
    config = scaled(YarnScaling(**{"factor": 8.0, "original_positions": 16} | changes))
    assert attention_factor(config) == pytest.approx(expected)
    cos, _ = rotation(config, jnp.zeros((1, 1), jnp.int32))
    np.testing.assert_allclose(cos, expected, rtol=1e-6)


def test_dynamic_scaling_raises_theta_by_the_length_of_the_sequence():
    config = scaled(DynamicScaling(factor=3.0))
    for length in (5, 16, 17, 40):
        theta = 1e4 * max(3 * length / 16 - 2, 1) ** (8 / 6)
        angles = (length - 1) * theta ** -(np.arange(4) / 4)
        cos, sin = rotation(config, jnp.arange(length)[None])
        np.testing.assert_allclose(cos[0, -1, 0], np.cos(angles), atol=1e-5)
        np.testing.assert_allclose(sin[0, -1, 0], np.sin(angles), atol=1e-5)


def test_dynamic_scaling_knows_no_neighbours():
    """A sequence of 20 in a row with one of 6 and padding, or in a batch with a longer one, turns as it does alone."""
    config = scaled(DynamicScaling(factor=3.0))
    alone = rotation(config, jnp.arange(20)[None])
    short = rotation(config, jnp.arange(6)[None])
    positions = jnp.array([[*range(6), *range(20), 0, 0], list(range(28))])
    packed = rotation(config, positions, jnp.array([[1] * 6 + [2] * 20 + [0] * 2, [1] * 28]))
    for found, expected, first in zip(packed, alone, short, strict=True):
        np.testing.assert_array_equal(found[0, 6:26], expected[0])
        np.testing.assert_array_equal(found[0, :6], first[0])
    decoded = rotation(config, jnp.array([[3], [3]]), row_lengths=jnp.array([20, 40]))
    np.testing.assert_array_equal(decoded[0][0, 0], alone[0][0, 3])
    assert np.abs(decoded[0][1, 0] - alone[0][0, 3]).max() > 1e-3


def test_large_positions_are_told_apart():
    """In bfloat16 2,047 and 2,048 would be one number, and 100,001 a hundred off."""
    positions = np.array([[2047, 2048, 100_001]])
    cos, sin = rotation(PLAIN, jnp.array(positions))
    angles = positions[0, :, None] * np.array([1, 1e-1, 1e-2, 1e-3])
    np.testing.assert_allclose(cos[0, :, 0], np.cos(angles), atol=2e-3)  # float32 ends at 7 digits of 10,000 radians
    np.testing.assert_allclose(sin[0, :, 0], np.sin(angles), atol=2e-3)


def test_rotation_turns_halves_and_keeps_the_dtype():
    quarter = (jnp.zeros((1, 1, 1, 2)), jnp.ones((1, 1, 1, 2)))
    turned = rotate(jnp.array([[[[1, 2, 3, 4]]]], jnp.bfloat16), quarter)
    assert turned.dtype == jnp.bfloat16
    np.testing.assert_array_equal(turned[0, 0, 0].astype(jnp.float32), [-3, -4, 1, 2])


def test_rotation_keeps_lengths():
    x = jax.random.normal(jax.random.key(0), (1, 5, 2, 8))
    turned = rotate(x, rotation(PLAIN, jnp.arange(5)[None]))
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-6)


def test_scores_depend_on_distance_only():
    q, k = (jax.random.normal(key, (1, 1, 1, 8)) for key in jax.random.split(jax.random.key(0)))

    def score(at: int, other: int) -> float:
        turned = [rotate(x, rotation(PLAIN, jnp.array([[place]]))) for x, place in ((q, at), (k, other))]
        return float(jnp.vdot(*turned))

    np.testing.assert_allclose(score(5, 3), score(1_005, 1_003), rtol=1e-3)
    assert abs(score(5, 3) - score(5, 4)) > 1e-3
