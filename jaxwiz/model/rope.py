"""Rotary position embeddings in Hugging Face's layout: dimension i turns with dimension i + H/2 (arXiv 2104.09864).

Frequencies that follow from the config alone are worked out in float64 while a program is traced, and are constants in
it. Those of `dynamic` scaling depend on how long a sequence is, whatever shares the row with it. A row of a cache has
to know from its first token on how long it will be (`row_lengths`): were the frequencies to grow from token to token,
cached keys, even if kept unrotated, would be stale from the second layer on, since they were computed from what earlier
layers saw under other frequencies, and no cached decode would equal the forward pass over the whole sequence.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.rope_config import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

Rotation = tuple[jax.Array, jax.Array]


def rotation(
    config: LlamaConfig,
    positions: jax.Array,
    segment_ids: jax.Array | None = None,
    row_lengths: jax.Array | None = None,
) -> Rotation:
    """Returns (cos, sin) of each position's angles, times the attention factor, both float32 [B, T, 1, H/2].

    Positions stay integers until they become float32: bfloat16 cannot tell 2,047 from 2,048.

    Args:
      config: the model's shape, with theta and the scaling of frequencies.
      positions: int32 [B, T].
      segment_ids: int32 [B, T], equal within a sequence; None: each row is one.
      row_lengths: int32 [B], how long each row's one sequence is; None: each is as long as its last position says.
    """
    frequencies: jax.Array | np.ndarray = static_frequencies(config).astype(np.float32)
    if isinstance(config.rope_scaling, DynamicScaling):
        lengths = _sequence_lengths(positions, segment_ids) if row_lengths is None else row_lengths[:, None]
        frequencies = frequencies * _slowdown(config, config.rope_scaling, lengths[:, :, None, None])
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies
    factor = attention_factor(config)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Returns `x` [B, T, N, H] turned by its positions' angles, computed in float32, in x's dtype."""
    cos, sin = by
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def static_frequencies(config: LlamaConfig) -> np.ndarray:
    """Returns the angle per position of each pair of dimensions, float64 [H/2]; `dynamic` starts from these.

    Source: `modeling_rope_utils.py` of transformers.
    """
    dims, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    frequencies = theta ** -(np.arange(0, dims, 2) / dims)
    if isinstance(scaling, LinearScaling):
        return frequencies / scaling.factor
    if isinstance(scaling, Llama3Scaling):
        turns = scaling.original_positions * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return frequencies * (kept + (1 - kept) / scaling.factor)
    if isinstance(scaling, YarnScaling):
        kept = 1 - _yarn_ramp(scaling, dims, theta)
        return frequencies * (kept + (1 - kept) / scaling.factor)
    return frequencies


def attention_factor(config: LlamaConfig) -> float:
    """Returns what cosines and sines are multiplied by: 1 unless the scaling is YaRN (its equation 22)."""
    scaling = config.rope_scaling
    if not isinstance(scaling, YarnScaling):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude(1.0)


def _yarn_ramp(scaling: YarnScaling, dims: int, theta: float) -> np.ndarray:
    """Returns 0 for dimensions whose frequency is kept, 1 for those divided, float64 [H/2]."""

    def dimension_turning(times: float) -> float:
        return dims * math.log(scaling.original_positions / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_turning(scaling.beta_fast), dimension_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    width = high - low or 0.001  # a ramp without width is a step
    return np.clip((np.arange(dims // 2) - low) / width, 0, 1)


def _slowdown(config: LlamaConfig, scaling: DynamicScaling, lengths: jax.Array) -> jax.Array:
    """Returns what the frequencies of sequences of `lengths` [B, T or 1, 1, 1] are multiplied by, float32 [..., H/2].

    Raising theta to theta * s ** (H / (H - 2)) multiplies frequency i by s ** (-2 i / (H - 2)).
    """
    beyond = jnp.maximum(lengths - config.max_positions, 0).astype(jnp.float32)
    stretch = 1 + scaling.factor * beyond / config.max_positions
    return stretch ** -(np.arange(0, config.head_dim, 2) / (config.head_dim - 2)).astype(np.float32)


def _sequence_lengths(positions: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns 1 + the last position of each token's sequence, int32 [B, T], or [B, 1] where a row is one."""
    if segment_ids is None:
        return positions.max(axis=1, keepdims=True) + 1
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return jnp.max(jnp.where(same, positions[:, None, :], 0), axis=-1) + 1
