"""The default model in jaxwiz and in transformers, side by side, from the same GGUF through two independent readers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import greedy, logits_at
from smollm2_cases import (
    CODE_TEXTS,
    GREEDY_TOKENS,
    LONG_POSITIONS,
    LONG_TEXT,
    PROMPTS,
    TEXTS,
    fetch_smollm2,
    reference_tokenizer,
)

from jaxwiz.convert.gguf_in import read_gguf
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.text.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="needs the parity extra")
transformers = pytest.importorskip("transformers", reason="needs the parity extra")

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def gguf_path() -> Path:
    try:
        return fetch_smollm2()
    except ConversionError as error:
        pytest.skip(f"the default model can't be had here: {error}")


@pytest.fixture(scope="module")
def ours(gguf_path: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return read_gguf(gguf_path, tmp_path_factory.mktemp("tokenizer"), "test")


@pytest.fixture(scope="module")
def reference(gguf_path: Path) -> Any:
    return reference_tokenizer(gguf_path)


@pytest.fixture(scope="module")
def theirs(gguf_path: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_path.parent, gguf_file=gguf_path.name, dtype=torch.float32
    )
    model.generation_config.eos_token_id = None  # compare all tokens, whatever they are
    return model.eval()


@pytest.mark.parametrize("length", [8, LONG_POSITIONS])
def test_logits_are_equal(reference: Any, ours: ModelFiles, theirs: Any, length: int) -> None:
    tokens = reference(LONG_TEXT).input_ids[:length]
    positions = np.arange(0, length, max(1, length // 128))  # of 2,048 positions 128, so that memory stays small
    with torch.no_grad():
        hidden = theirs.model(torch.tensor([tokens])).last_hidden_state[0, positions]
        expected = theirs.lm_head(hidden).numpy()
    found = logits_at(ours.params, ours.config, tokens, positions)
    print(f"{length} positions: largest difference {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_greedy_generation_is_equal(reference: Any, ours: ModelFiles, theirs: Any) -> None:
    prompts = [reference(text).input_ids for text in PROMPTS]
    expected = []
    for tokens in prompts:
        row = torch.tensor([tokens])
        # Without a mask, transformers hides token 2 of the prompt, the end of a turn, because it is the pad token, too.
        done = theirs.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=GREEDY_TOKENS, do_sample=False)
        expected.append(done[0, len(tokens) :].tolist())
    assert greedy(ours.params, ours.config, prompts, GREEDY_TOKENS) == expected


def test_tokenizer_is_equal_on_all_texts(reference: Any, ours: ModelFiles) -> None:
    tokenizer = load_tokenizer(ours.tokenizer)
    for text in (*TEXTS, *CODE_TEXTS):
        assert tokenizer.encode(text) == reference(text, split_special_tokens=True).input_ids, text


def test_our_tokenizer_files_open_in_transformers_and_chat_alike(reference: Any, ours: ModelFiles) -> None:
    opened = transformers.AutoTokenizer.from_pretrained(ours.tokenizer)
    messages = [{"role": "user", "content": "Reverse  12 strings."}]
    options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": False}
    text = opened.apply_chat_template(messages, **options)
    assert text == reference.apply_chat_template(messages, **options)
    assert opened(text).input_ids == reference(text).input_ids
    for role in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(opened, role) == getattr(reference, role)
    assert json.loads((ours.tokenizer / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
