"""Weights come back as they went; what is no checkpoint is named."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import (
    CheckpointError,
    Header,
    load_model_config,
    load_weights,
    provenance,
    read_header,
    save_weights,
    template,
    tokenizer_folder,
    write_header,
)
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params

CONFIG = LlamaConfig(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, dict]:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    params = init_params(CONFIG, jax.random.key(0))
    save_weights(tmp_path / "model", params, CONFIG, tokenizer, {"source": "random"})
    return tmp_path / "model", params


def test_weights_come_back_bit_for_bit(checkpoint: tuple[Path, dict]):
    folder, params = checkpoint
    jax.tree.map(np.testing.assert_array_equal, load_weights(folder), params)
    assert load_model_config(folder) == CONFIG
    assert provenance(folder) == {"source": "random"}
    assert (tokenizer_folder(folder) / "tokenizer.json").read_text() == "{}"


def test_weights_load_in_another_dtype(checkpoint: tuple[Path, dict]):
    folder, params = checkpoint
    scale = load_weights(folder, dtype=jnp.bfloat16)["embed"]["tokens"]
    np.testing.assert_array_equal(scale, params["embed"]["tokens"].astype(jnp.bfloat16))


def test_weights_load_as_stored(checkpoint: tuple[Path, dict], tmp_path: Path):
    folder, params = checkpoint
    mixed = {**params, "embed": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["embed"])}
    save_weights(tmp_path / "mixed", mixed, CONFIG, tokenizer_folder(folder), {})
    stored = load_weights(tmp_path / "mixed", dtype=None)
    assert jax.tree.map(lambda leaf: leaf.dtype, stored) == jax.tree.map(lambda leaf: leaf.dtype, mixed)
    jax.tree.map(np.testing.assert_array_equal, stored, mixed)


def test_what_an_export_restores_travels_with_trained_weights(checkpoint: tuple[Path, dict], tmp_path: Path):
    folder, params = checkpoint
    header = Header(
        CONFIG,
        {"source": "x", "sha256": "1"},
        template="alpaca",
        unpadded_vocab_size=90,
        hf_config={"a": [1]},
        tensor_dtypes={"model.norm.weight": "float16"},
    )
    write_header(folder, header)
    assert read_header(folder) == header
    assert template(folder) == "alpaca"
    save_weights(tmp_path / "trained", params, CONFIG, tokenizer_folder(folder), {"stage": "train"}, base=folder)
    expected = Header(CONFIG, {"stage": "train"}, "alpaca", unpadded_vocab_size=90, hf_config={"a": [1]})
    assert read_header(tmp_path / "trained") == expected  # trained weights keep no dtypes: they are float32 now
    save_weights(tmp_path / "other", params, CONFIG, tokenizer_folder(folder), {}, base=folder, template="chatml")
    assert template(tmp_path / "other") == "chatml"


def test_a_header_written_before_there_were_families_is_of_a_llama(checkpoint: tuple[Path, dict]):
    folder, _ = checkpoint
    data = json.loads((folder / "model.json").read_text())
    assert data["config"].pop("kind") == "llama"
    (folder / "model.json").write_text(json.dumps(data))
    assert load_model_config(folder) == CONFIG


def test_lost_arrays_are_one_clear_error(checkpoint: tuple[Path, dict]):
    folder, _ = checkpoint
    shutil.rmtree(folder / "params")
    with pytest.raises(CheckpointError, match=r"params/ is damaged \(.*\); copy or convert the model again"):
        load_weights(folder)


def test_a_header_that_lacks_a_field_is_named(checkpoint: tuple[Path, dict]):
    folder, _ = checkpoint
    data = json.loads((folder / "model.json").read_text())
    del data["template"]
    (folder / "model.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"model\.json: lacks template; convert or copy the model again"):
        load_weights(folder)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_weights(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "jaxwiz.checkpoint.v1"}')
    with pytest.raises(
        CheckpointError, match=r"not a checkpoint of format 'jaxwiz\.checkpoint\.v2'; convert the model again"
    ):
        load_model_config(tmp_path)


def test_arrays_that_do_not_match_their_config_are_named(checkpoint: tuple[Path, dict]):
    folder, _ = checkpoint
    header = json.loads((folder / "model.json").read_text())
    header["config"]["intermediate_size"] = 64
    (folder / "model.json").write_text(json.dumps(header))
    with pytest.raises(
        CheckpointError, match=r"layers.mlp.gate.kernel: config says \(2, 32, 64\), params/ holds \(2, 32, 48\)"
    ):
        load_weights(folder)
