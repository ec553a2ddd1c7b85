"""Every family and every scaling of rope against transformers: logits, gradients, cached decode, padded batches."""

from typing import Any

import jax
import numpy as np
import pytest
from decoder_cases import (
    CASES,
    decoded_logits,
    gradients_and_logits,
    loss_and_logits,
    padded_logits,
    params_of,
    tensors_of,
    text_of,
)

from jaxwiz.model.config import LlamaConfig, ModelConfig, model_config_from_hf

transformers = pytest.importorskip("transformers", reason="needs the parity extra")

from make_decoder_golden import reference_model, reference_run  # noqa: E402 - imports transformers

pytestmark = pytest.mark.parity

LONG = 2_100
SCALED = [name for name, data in CASES.items() if getattr(model_config_from_hf(data), "rope_scaling", None) is not None]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Any, Any, ModelConfig]:
    """A case's name, transformers' model, and our parameters and config."""
    config = model_config_from_hf(CASES[request.param])
    tensors = tensors_of(config)
    return request.param, reference_model(CASES[request.param], tensors), params_of(tensors, config), config


@pytest.mark.parametrize("length", [8, LONG])
def test_logits_and_gradients_are_those_of_transformers(case: tuple[str, Any, Any, ModelConfig], length: int) -> None:
    name, theirs, params, config = case
    tokens = text_of(config, length)
    expected, expected_gradients = reference_run(theirs, tokens)
    gradients, found = gradients_and_logits(params, config, tokens)
    print(f"{name}, {length} positions: logits differ by at most {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    expected_leaves = jax.tree.leaves_with_path(params_of(expected_gradients, config))
    worst = 0.0
    for (path, one), other in zip(expected_leaves, jax.tree.leaves(gradients), strict=True):
        assert np.abs(one).max() > 1e-7, path  # every parameter takes part
        size = float(np.abs(one).max())  # gradients of a mean are small; 1e-4 of their own size
        worst = max(worst, float(np.abs(one - other).max()) / size)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4 * size, err_msg=jax.tree_util.keystr(path))
    print(f"{name}, {length} positions: gradients differ by at most {worst:.1e} of a tensor's largest")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_those_that_transformers_computes_alone(
    case: tuple[str, Any, Any, ModelConfig], side: str
) -> None:
    _, theirs, params, config = case
    texts = [text_of(config, length) for length in (5, 61, 100)]
    for found, text in zip(padded_logits(params, config, texts, side), texts, strict=True):
        np.testing.assert_allclose(found, reference_run(theirs, text)[0], rtol=0, atol=1e-4)


def test_cached_decode_is_the_full_forward(case: tuple[str, Any, Any, ModelConfig]) -> None:
    name, theirs, params, config = case
    tokens = text_of(config, 300)
    full = np.asarray(loss_and_logits(params, config, tokens)[1])
    found = decoded_logits(params, config, tokens, prompt=50)
    print(f"{name}: cached decode differs by at most {np.abs(found - full).max():.1e}")
    np.testing.assert_allclose(found, full, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, reference_run(theirs, tokens)[0], rtol=0, atol=1e-4)


def test_written_config_is_read_by_transformers_as_the_same_model(case: tuple[str, Any, Any, ModelConfig]) -> None:
    _, theirs, _, config = case
    again = reference_model(config.to_hf(), tensors_of(config))
    tokens = text_of(config, 100)
    np.testing.assert_array_equal(reference_run(again, tokens)[0], reference_run(theirs, tokens)[0])
    assert model_config_from_hf(theirs.config.to_dict()) == config  # transformers' own spelling


@pytest.mark.parametrize("name", SCALED)
def test_scaling_matters_beyond_the_original_context(name: str) -> None:
    """Without this, the comparisons above could agree on a scaling that neither side applies."""
    config = LlamaConfig.from_hf(CASES[name])
    plain = LlamaConfig.from_hf({**CASES[name], "rope_scaling": None, "rope_parameters": None})
    params, tokens = params_of(tensors_of(config), config), text_of(config, 100)
    scaled, unscaled = (loss_and_logits(params, one, tokens)[1] for one in (config, plain))
    assert np.abs(scaled - unscaled).max() > 1e-2
