"""Lets these tests import the modules of tests/golden, and gives them small tokenizers and Llama 2's."""

import sys
from pathlib import Path

import pytest

from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer
from tests.text.small_tokenizers import write_llama_3

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

LLAMA_2 = Path(__file__).parents[2].parent / "shared" / "data" / "llama2-tokenizer.model"


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer.model in Llama 2's manner: byte fallback, dummy prefix, whitespace kept."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sentencepiece")
    lines = ["def add(first, second):", "    return first + second", "Write a Python function.", "### Response:"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return folder


@pytest.fixture(scope="session")
def llama_3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small tokenizer.json in Llama 3's layout."""
    return write_llama_3(tmp_path_factory.mktemp("llama-3"))


@pytest.fixture(scope="session")
def llama_2() -> Tokenizer:
    if not LLAMA_2.exists():
        pytest.skip(f"needs {LLAMA_2}, which is not part of the project")
    return load_tokenizer(LLAMA_2)
