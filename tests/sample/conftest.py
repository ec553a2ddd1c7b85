"""A tiny random model whose vocabulary is the tiny tokenizer's."""

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params, init_params
from jaxwiz.sample.engine import Engine
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer

MODEL = LlamaConfig(
    vocab_size=384,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=512,
    tie_embeddings=True,
)
SLOTS = 4


@pytest.fixture(scope="session")
def params() -> Params:
    """Parameters large enough that the next token depends on more than the newest one."""
    return jax.tree.map(lambda leaf: leaf * 8, init_params(MODEL, jax.random.key(1)))


@pytest.fixture(scope="session")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tiny_tokenizer_folder)


@pytest.fixture(scope="session")
def make_engine(params: Params, tokenizer: Tokenizer) -> Callable[..., Engine]:
    """Returns an engine over the tiny model; without end tokens unless given, so that rows run to their limit."""

    def make(end_ids: tuple[int, ...] = (-2,)) -> Engine:
        return Engine(params, MODEL, tokenizer, slots=SLOTS, end_ids=end_ids)

    return make


@pytest.fixture(scope="session")
def checkpoint(params: Params, tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a checkpoint folder."""
    from jaxwiz.checkpoint.weights import save_weights

    folder = tmp_path_factory.mktemp("tiny-model") / "model"
    save_weights(folder, params, MODEL, tiny_tokenizer_folder, {"source": "random"})
    return folder
