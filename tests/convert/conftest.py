"""Lets these tests import the modules of tests/golden, and gives them small models."""

import sys
from pathlib import Path

import jax
import pytest

from jaxwiz.convert.tensors import ModelFiles, leaf_dtypes
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

# Every axis has its own size, so that a swapped pair cannot pass.
TINY = LlamaConfig(
    vocab_size=400, hidden_size=20, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=4
)


@pytest.fixture
def tiny_config() -> LlamaConfig:
    return TINY


@pytest.fixture
def tiny_model(tiny_tokenizer_folder: Path) -> ModelFiles:
    """A random untied float32 model with a real tokenizer."""
    params = jax.device_get(init_params(TINY, jax.random.key(0)))
    return ModelFiles(params, TINY, tiny_tokenizer_folder, {"source": "test", "dtypes": leaf_dtypes(params, TINY)})
