"""Adapter folders: written and read back byte for byte, self-describing, and every fault named."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxwiz.checkpoint.adapter import BASE_FILE, CONFIG_FILE, WEIGHTS_FILE, load_adapter, save_adapter
from jaxwiz.checkpoint.weights import CheckpointError, save_weights
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import lora_specs
from jaxwiz.model.params import Params, init_params, map_specs

# Every axis has its own size, so that a swapped pair cannot pass.
MODEL = LlamaConfig(
    vocab_size=400, hidden_size=20, intermediate_size=28, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=4
)
LORA = LoraConfig(rank=5, alpha=7.5, targets=("q", "o", "up"), dropout=0.25, rank_stabilized=True)


def random_adapters(dtype: Any = np.float32) -> Params:
    random = np.random.default_rng(0)
    return map_specs(lambda spec: random.normal(size=spec.shape).astype(dtype), lora_specs(MODEL, LORA))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    params = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    save_weights(folder, params, MODEL, tiny_tokenizer_folder, {"source": "tests", "sha256": "ab" * 32})
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_adapters_come_back_exactly_and_writing_them_again_gives_the_same_files(
    base: Path, tmp_path: Path, dtype: Any
) -> None:
    params = random_adapters(dtype)
    save_adapter(tmp_path / "one", params, LORA, base, {"stage": "test"})
    found = load_adapter(tmp_path / "one", MODEL)
    assert found.config == LORA
    assert found.base == {"path": str(base), "provenance": {"source": "tests", "sha256": "ab" * 32}}
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype(dtype)}
    save_adapter(tmp_path / "two", found.params, found.config, base, {"stage": "test"})
    for name in (WEIGHTS_FILE, CONFIG_FILE, BASE_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_names_and_layout_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    params = random_adapters()
    save_adapter(tmp_path / "adapter", params, LORA, base, {})
    tensors = safetensors.numpy.load_file(tmp_path / "adapter" / WEIGHTS_FILE)
    assert len(tensors) == 3 * 3 * 2
    prefix = "base_model.model.model.layers.2."
    # lora_A is [rank, input], lora_B [output, rank]; of the output projection, inputs are heads x head size.
    a, b = tensors[f"{prefix}self_attn.q_proj.lora_A.weight"], tensors[f"{prefix}self_attn.q_proj.lora_B.weight"]
    assert (a.shape, b.shape) == ((5, 20), (24, 5))
    assert a[1, 17] == params["q"]["a"][2, 17, 1]
    assert b[4 * 3 + 2, 1] == params["q"]["b"][2, 1, 3, 2]
    a, b = tensors[f"{prefix}self_attn.o_proj.lora_A.weight"], tensors[f"{prefix}self_attn.o_proj.lora_B.weight"]
    assert (a.shape, b.shape) == ((5, 24), (20, 5))
    assert a[1, 4 * 3 + 2] == params["o"]["a"][2, 3, 2, 1]
    assert tensors[f"{prefix}mlp.up_proj.lora_B.weight"][27, 4] == params["up"]["b"][2, 4, 27]
    settings = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    assert settings["target_modules"] == ["q_proj", "o_proj", "up_proj"]
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (5, 7.5, True)


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
        change(tensors)
        safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE)

    return apply


Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_config(peft_type="IA3"), "peft_type = 'IA3': must be 'LORA'"),
        (change_config(use_dora=True), "use_dora = True: not supported"),
        (change_config(bias="lora_only"), "bias = 'lora_only': must be 'none'"),
        (change_config(modules_to_save=["lm_head"]), r"modules_to_save = \['lm_head'\]: not supported"),
        (change_config(rank_pattern={"q_proj": 2}), r"rank_pattern = \{'q_proj': 2\}: not supported"),
        (change_config(use_something_new=True), "use_something_new = True: not supported"),
        (change_config(init_lora_weights="pissa_niter_4"), "'pissa_niter_4': changes the base's weights"),
        (change_config(r=None), "r = None: must be a number above 0"),
        (change_config(r=4), r"lora_A.weight: has shape \[5, 20\], base and rank ask for \[4, 20\]"),
        (change_tensors(lambda tensors: tensors.pop(Q0)), rf"{Q0}: missing, expected \[5, 20\]"),
        (change_tensors(lambda tensors: tensors.update(x=tensors[Q0])), "x: no adapter of the base has this name"),
        (change_tensors(lambda tensors: tensors.clear()), "holds no adapter of self_attn.q_proj"),
        (lambda folder: (folder / CONFIG_FILE).unlink(), "adapter_config.json: cannot be read"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "adapter_config.json: not valid JSON"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "adapter_model.safetensors: cannot be read"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\0" * 20), "damaged or truncated safetensors"),
    ],
)
def test_what_is_wrong_is_named(base: Path, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "adapter"
    save_adapter(folder, random_adapters(), LORA, base, {})
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_adapter(folder, MODEL)


def test_a_base_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", random_adapters(), LORA, base, {})
    with pytest.raises(CheckpointError, match=r"6 tensor\(s\) do not fit; use the base"):
        load_adapter(tmp_path / "adapter", dataclasses.replace(MODEL, num_layers=4))
