"""The imported default model computes what transformers computes from the same GGUF; see tests/golden/.

Skipped where the model can't be downloaded.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from decoding import greedy, logits_at
from smollm2_cases import FULL_VOCABULARY_POSITIONS, GREEDY_TOKENS, fetch_smollm2

from jaxwiz.convert.gguf_in import read_gguf
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.model.params import count_params
from jaxwiz.text.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
RECORD = json.loads((GOLDEN / "smollm2.json").read_text(encoding="utf-8"))
LOGITS = np.load(GOLDEN / "smollm2_logits.npz")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    try:
        path = fetch_smollm2()
    except ConversionError as error:
        pytest.skip(f"the default model can't be had here: {error}")
    return read_gguf(path, tmp_path_factory.mktemp("tokenizer"), "test")


def test_shape_is_that_of_the_model_card(smollm2: ModelFiles) -> None:
    config = smollm2.config
    assert count_params(config) == 134_515_008
    assert (config.rope_theta, config.norm_epsilon, config.max_positions) == (100_000.0, 1e-5, 8192)
    assert config.tie_embeddings


@pytest.mark.parametrize("name", ["short", "long"])
def test_logits_equal_those_of_transformers(smollm2: ModelFiles, name: str) -> None:
    positions = LOGITS[f"{name}_positions"]
    found = logits_at(smollm2.params, smollm2.config, LOGITS[f"{name}_tokens"], positions)
    sample = LOGITS["vocabulary_sample"]
    largest = max(
        np.abs(found[:, sample] - LOGITS[f"{name}_logits"]).max(),
        np.abs(found[-FULL_VOCABULARY_POSITIONS:] - LOGITS[f"{name}_full"]).max(),
    )
    print(
        f"{len(LOGITS[f'{name}_tokens'])} positions: largest difference of logits {largest:.1e}"
    )  # shown by pytest -s
    np.testing.assert_allclose(found[:, sample], LOGITS[f"{name}_logits"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.max(-1), LOGITS[f"{name}_max"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[-FULL_VOCABULARY_POSITIONS:], LOGITS[f"{name}_full"], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(found.argmax(-1), LOGITS[f"{name}_argmax"])


def test_greedy_generation_equals_that_of_transformers(smollm2: ModelFiles) -> None:
    prompts = [prompt["tokens"] for prompt in RECORD["prompts"]]
    assert len(prompts) == 8
    found = greedy(smollm2.params, smollm2.config, prompts, GREEDY_TOKENS)
    assert found == [prompt["greedy"] for prompt in RECORD["prompts"]]


def test_tokenizer_equals_that_of_transformers(smollm2: ModelFiles) -> None:
    tokenizer = load_tokenizer(smollm2.tokenizer)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, 2, 49_152)
    assert tokenizer.special_id("<|im_start|>") == 1
    for case in RECORD["texts"]:
        assert tokenizer.encode(case["text"]) == case["tokens"], case["text"]
        assert tokenizer.decode(case["tokens"]) == case["text"]


def test_chat_template_is_kept(smollm2: ModelFiles) -> None:
    settings = json.loads((smollm2.tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "<|im_start|>" in settings["chat_template"]
    assert settings["add_bos_token"] is False
