"""Weights and training states come back as they went; what is no checkpoint is named."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.checkpoint.train_state import TrainCheckpoints, abstract_like
from jaxwiz.checkpoint.weights import (
    CheckpointError,
    load_model_config,
    load_weights,
    provenance,
    save_weights,
    tokenizer_folder,
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


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_weights(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "other"}')
    with pytest.raises(CheckpointError, match="not a checkpoint of format"):
        load_model_config(tmp_path)


def test_arrays_that_do_not_match_their_config_are_named(checkpoint: tuple[Path, dict]):
    folder, _ = checkpoint
    header = json.loads((folder / "model.json").read_text())
    header["config"]["intermediate_size"] = 64
    (folder / "model.json").write_text(json.dumps(header))
    with pytest.raises(
        CheckpointError, match=r"layers.mlp.gate: config says \(2, 32, 64\), params/ holds \(2, 32, 48\)"
    ):
        load_weights(folder)


def test_a_training_state_comes_back_and_old_ones_go(tmp_path: Path):
    state = {"step": jnp.int32(0), "params": init_params(CONFIG, jax.random.key(0))}
    checkpoints = TrainCheckpoints(tmp_path / "state", keep=2)
    assert checkpoints.latest_step() is None
    for step in (1, 2, 3):
        checkpoints.save(step, {**state, "step": jnp.int32(step)})
    checkpoints.wait()
    checkpoints.close()

    reopened = TrainCheckpoints(tmp_path / "state", keep=2)
    assert reopened.latest_step() == 3
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    restored = reopened.restore(3, abstract_like(state, shardings))
    assert int(restored["step"]) == 3
    jax.tree.map(np.testing.assert_array_equal, restored["params"], state["params"])
    assert not (tmp_path / "state" / "1").exists()
    reopened.close()
