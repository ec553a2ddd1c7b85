"""A tiny random model and packed rows for the train tests. Shapes are as small as the rules of packing allow."""

import functools
from typing import Any

import jax
import numpy as np

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params, init_params

MODEL = LlamaConfig(
    vocab_size=384,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=256,
    tie_embeddings=True,
)


@functools.cache
def random_params() -> Params:
    """Returns random parameters, large enough that losses differ clearly from token to token."""
    params = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * 4 if leaf.ndim > 2 else leaf, params)


def packed_row(examples: list[tuple[list[int], int]], length: int) -> dict[str, np.ndarray]:
    """Returns one packed row [T] of (tokens, prompt length) examples, padded with segment 0."""
    row = {name: np.zeros(length, np.int32) for name in ("tokens", "loss_mask", "segment_ids", "positions")}
    start = 0
    for segment, (tokens, prompt_length) in enumerate(examples, start=1):
        place = slice(start, start + len(tokens))
        row["tokens"][place] = tokens
        row["loss_mask"][place] = np.arange(len(tokens)) >= prompt_length
        row["segment_ids"][place] = segment
        row["positions"][place] = np.arange(len(tokens))
        start += len(tokens)
    return row


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Returns rows [T] as one batch [B, T]."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def random_examples(seed: int, lengths: list[tuple[int, int]]) -> list[tuple[list[int], int]]:
    """Returns examples of the given (length, prompt length) with random tokens."""
    random = np.random.default_rng(seed)
    return [(random.integers(1, MODEL.vocab_size, length).tolist(), prompt) for length, prompt in lengths]
