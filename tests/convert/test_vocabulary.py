"""Added tokens and padding rows: mean rows, the tokenizer's files know the tokens, and an export drops the padding."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from sentencepiece import SentencePieceProcessor

from jaxwiz.checkpoint.weights import load_model_config, load_weights, read_header, save_weights, tokenizer_folder
from jaxwiz.config import ConfigError, parse_config
from jaxwiz.convert.config import ConvertConfig, VocabularyConfig
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import run
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.convert.vocabulary import resize_vocabulary
from jaxwiz.files import hash_tree
from jaxwiz.text.tokenizer import load_tokenizer


def _convert(out: Path, **body: Any) -> Path:
    return run(parse_config({"out": str(out), **body}, ConvertConfig, "test")) / "model"


@pytest.fixture
def hf_folder(tmp_path: Path, tiny_model: ModelFiles) -> Path:
    write_hf_folder(tmp_path / "hf", tiny_model, "bfloat16")
    return tmp_path / "hf"


def _source(folder: Path, kind: str = "hf") -> dict[str, str]:
    return {"kind": kind, "path": str(folder)}


def test_padding_is_the_mean_and_goes_again(tmp_path: Path, hf_folder: Path, tiny_model: ModelFiles) -> None:
    checkpoint = _convert(tmp_path / "c", source=_source(hf_folder), vocabulary={"pad_to_multiple": 128})
    assert load_model_config(checkpoint).vocab_size == 512
    assert read_header(checkpoint).unpadded_vocab_size == 400
    params = load_weights(checkpoint)
    tokens, original = np.asarray(params["embed"]["tokens"]), load_file(hf_folder / "model.safetensors")
    before = original["model.embed_tokens.weight"].astype(np.float32)
    known = load_tokenizer(hf_folder).vocab_size
    np.testing.assert_array_equal(tokens[:400], before)
    np.testing.assert_allclose(tokens[400:], np.tile(before[:known].mean(axis=0), (112, 1)), rtol=1e-2)
    head = np.asarray(params["head"]["kernel"])
    np.testing.assert_allclose(
        head[:, 400:].T,
        np.tile(original["lm_head.weight"].astype(np.float32)[:known].mean(axis=0), (112, 1)),
        rtol=1e-2,
    )
    exported = _convert(tmp_path / "e", source=_source(checkpoint, "checkpoint"), target="hf")
    assert hash_tree(exported) == hash_tree(hf_folder)


def test_padding_survives_training(tmp_path: Path, hf_folder: Path) -> None:
    checkpoint = _convert(
        tmp_path / "c", source=_source(hf_folder), vocabulary={"pad_to_multiple": 64}, template="wizardcoder"
    )
    config = load_model_config(checkpoint)
    trained = jax.tree.map(lambda leaf: leaf * 2, load_weights(checkpoint))
    save_weights(tmp_path / "trained", trained, config, tokenizer_folder(checkpoint), {}, base=checkpoint)
    assert read_header(tmp_path / "trained").template == "wizardcoder"
    exported = _convert(
        tmp_path / "e", source=_source(tmp_path / "trained", "checkpoint"), target="hf", dtype="bfloat16"
    )
    before, after = load_file(hf_folder / "model.safetensors"), load_file(exported / "model.safetensors")
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor * 2)
    assert json.loads((exported / "config.json").read_text()) == json.loads((hf_folder / "config.json").read_text())
    wide = _convert(tmp_path / "w", source=_source(tmp_path / "trained", "checkpoint"), target="hf")
    assert json.loads((wide / "config.json").read_text())["torch_dtype"] == "float32"  # what training left


def test_padding_rows_take_at_most_their_share_of_the_probability(tiny_model: ModelFiles, tmp_path: Path) -> None:
    padded = resize_vocabulary(tiny_model, VocabularyConfig(pad_to_multiple=512), tmp_path / "tokenizer").params
    hidden = np.random.default_rng(0).normal(size=(200, tiny_model.config.hidden_size)) * 100
    logits = hidden @ np.asarray(padded["head"]["kernel"], np.float64)
    known = load_tokenizer(tiny_model.tokenizer).vocab_size
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    share = weights[:, 400:].sum(axis=1) / weights[:, :known].sum(axis=1)
    assert share.max() <= 112 / known * 1.001
    assert share.min() < 0.01  # where the model is sure of a token they take next to nothing


def test_added_tokens_are_control_tokens_with_rows(tmp_path: Path, hf_folder: Path) -> None:
    (hf_folder / "generation_config.json").write_text('{"pad_token_id": 0}')
    (hf_folder / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    known = load_tokenizer(hf_folder).vocab_size
    vocabulary = {"add_tokens": ["[PAD]", "<tool>"], "pad_token": "[PAD]"}
    checkpoint = _convert(tmp_path / "c", source=_source(hf_folder), vocabulary=vocabulary)
    tokenizer = load_tokenizer(checkpoint)
    assert (tokenizer.special_id("[PAD]"), tokenizer.special_id("<tool>")) == (known, known + 1)
    assert tokenizer.pad_id == known
    assert tokenizer.encode("def [PAD]") == load_tokenizer(hf_folder).encode("def [PAD]")  # text is never a token
    before = load_file(hf_folder / "model.safetensors")["model.embed_tokens.weight"].astype(np.float32)
    tokens = np.asarray(load_weights(checkpoint)["embed"]["tokens"])
    assert tokens.shape == before.shape  # the model had spare rows
    np.testing.assert_allclose(tokens[known : known + 2], np.tile(before[:known].mean(axis=0), (2, 1)), rtol=1e-2)
    np.testing.assert_array_equal(tokens[known + 2 :], before[known + 2 :])
    exported = _convert(tmp_path / "e", source=_source(checkpoint, "checkpoint"), target="hf")
    assert json.loads((exported / "config.json").read_text())["pad_token_id"] == known
    assert json.loads((exported / "generation_config.json").read_text())["pad_token_id"] == known
    assert json.loads((exported / "special_tokens_map.json").read_text())["pad_token"] == "[PAD]"


def test_tokens_beyond_the_embedding_enlarge_it(tmp_path: Path, hf_folder: Path) -> None:
    known = load_tokenizer(hf_folder).vocab_size
    added = [f"<extra {number}>" for number in range(400 - known + 3)]
    checkpoint = _convert(tmp_path / "c", source=_source(hf_folder), vocabulary={"add_tokens": added})
    assert load_model_config(checkpoint).vocab_size == 403
    padded = _convert(tmp_path / "p", source=_source(checkpoint, "checkpoint"), vocabulary={"pad_to_multiple": 8})
    assert load_model_config(padded).vocab_size == 408
    exported = _convert(tmp_path / "e", source=_source(padded, "checkpoint"), target="hf")
    assert json.loads((exported / "config.json").read_text())["vocab_size"] == 403
    assert load_file(exported / "model.safetensors")["lm_head.weight"].shape[0] == 403


def test_sentencepiece_models_take_tokens(tmp_path: Path, tiny_model: ModelFiles, tiny_sentencepiece: Path) -> None:
    folder = tmp_path / "sentencepiece"
    folder.mkdir()
    shutil.copyfile(tiny_sentencepiece, folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text("{}")
    model = dataclasses.replace(tiny_model, tokenizer=folder)
    resized = resize_vocabulary(model, VocabularyConfig(add_tokens=("[PAD]",), pad_token="[PAD]"), tmp_path / "new")
    assert load_tokenizer(resized.tokenizer).special_id("[PAD]") == 60
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "new" / "tokenizer.model"))
    assert (pieces.vocab_size(), pieces.id_to_piece(60)) == (61, "[PAD]")
    assert pieces.encode("def add") == SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(
        "def add"
    )
    assert json.loads((tmp_path / "new" / "added_tokens.json").read_text()) == {"[PAD]": 60}


def test_a_token_that_exists_is_refused(tmp_path: Path, hf_folder: Path) -> None:
    with pytest.raises(ConversionError, match=r"vocabulary.add_tokens: '<\|im_end\|>' is in tokenizer.json already"):
        _convert(tmp_path / "c", source=_source(hf_folder), vocabulary={"add_tokens": ["<|im_end|>"]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"vocabulary": {"add_tokens": ["a", "a"]}}, "each must be given once"),
        ({"vocabulary": {"pad_token": "[PAD]"}}, "must be one of add_tokens"),
        ({"vocabulary": {"pad_to_multiple": 0}}, "vocabulary.pad_to_multiple"),
        ({"vocabulary": {"pad_to_multiple": 8}, "target": "hf"}, "an export leaves padding out"),
        ({"template": "unheard-of"}, "template = 'unheard-of'"),
    ],
)
def test_contradictions_are_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({"out": "out", "source": {"kind": "hf", "path": "x"}, **body}, ConvertConfig, "test")
