"""Every family and every scaling of rope computes what transformers did: logits and gradients, cached and padded."""

import functools

import numpy as np
import pytest
from decoder_cases import (
    CASES,
    GOLDEN,
    LENGTHS,
    decoded_logits,
    gradient_digest,
    gradients_and_logits,
    kept_positions,
    padded_logits,
    params_of,
    tensors_of,
    text_of,
)

from jaxwiz.convert.names import rules_for, tensor_names
from jaxwiz.model.config import ModelConfig, model_config_from_hf
from jaxwiz.model.params import Params


@functools.cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def digests(gradients: Params, config: ModelConfig) -> np.ndarray:
    """Returns the digest of each tensor's gradient, in the order of the tensors' names."""
    found = {}
    for rule in rules_for(config):
        leaf = np.asarray(functools.reduce(dict.__getitem__, rule.param.split("."), gradients))
        for layer, name in enumerate(tensor_names(rule, config)):
            found[name] = gradient_digest(rule.to_tensor(leaf[layer] if rule.stacked else leaf))
    return np.array([found[name] for name in sorted(found)])


# One case for each parameter tree and kind of rope; tests/parity does all of this for every case, at greater length.
WHOLE = ("llama_2_70b", "llama_3_2_tied", "deepseek_coder", "dynamic", "yarn_mscale", "biased", "starcoder")


def model(name: str) -> tuple[Params, ModelConfig]:
    config = model_config_from_hf(CASES[name])
    return params_of(tensors_of(config), config), config


@pytest.mark.parametrize("name", CASES)
def test_padded_rows_have_the_logits_that_transformers_gives_each_alone(name: str):
    params, config = model(name)
    for side in ("left", "right"):
        rows = padded_logits(params, config, [text_of(config, length) for length in LENGTHS], side)
        for found, length in zip(rows, LENGTHS, strict=True):
            np.testing.assert_allclose(found[kept_positions(length)], golden()[f"{name}/{length}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_and_cached_decode_are_those_of_transformers(name: str):
    params, config = model(name)
    length = LENGTHS[1]
    gradients, full = gradients_and_logits(params, config, text_of(config, length))
    np.testing.assert_allclose(full[kept_positions(length)], golden()[f"{name}/{length}"], rtol=0, atol=1e-4)
    expected = golden()[f"{name}/{length}/gradients"]
    assert (np.abs(digests(gradients, config) - expected) <= 1e-4 * expected[:, :1]).all()  # of each gradient's norm
    decoded = decoded_logits(params, config, text_of(config, length), prompt=40)
    np.testing.assert_allclose(decoded, full, rtol=0, atol=1e-5)
