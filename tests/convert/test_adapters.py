"""Merging adapters while converting: exact in float32, in parts, into checkpoints and Hugging Face folders."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.checkpoint.adapter import save_adapter
from jaxwiz.checkpoint.weights import load_weights, provenance, save_weights
from jaxwiz.config import parse_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.run import check, run
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.files import UserError
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import lora_specs, merge_lora
from jaxwiz.model.params import Params, map_specs

LORA = LoraConfig(rank=5, alpha=10.0)


def config_of(out: Path, source: dict[str, Any], **body: Any) -> ConvertConfig:
    return parse_config({"out": str(out), "source": source, **body}, ConvertConfig, "test")


@pytest.fixture
def base(tiny_model: ModelFiles, tmp_path: Path) -> Path:
    """A bfloat16 checkpoint."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tiny_model.params)
    save_weights(tmp_path / "base", params, tiny_model.config, tiny_model.tokenizer, {"source": "test", "sha256": "a"})
    return tmp_path / "base"


@pytest.fixture
def adapters(tiny_model: ModelFiles) -> Params:
    random = np.random.default_rng(0)
    return map_specs(
        lambda spec: random.normal(size=spec.shape).astype(np.float32), lora_specs(tiny_model.config, LORA)
    )


def test_a_merged_checkpoint_is_base_plus_adapters(base: Path, adapters: Params, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", adapters, LORA, base, {})
    config = config_of(tmp_path / "merged", {"kind": "peft", "path": str(tmp_path / "adapter"), "base": str(base)})
    assert {finding.level for finding in check(config)} == {"ok"}
    merged = run(config) / "model"
    found, expected = load_weights(merged), merge_lora(load_weights(base), adapters, LORA)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-6), found, expected)
    stored = load_weights(merged, dtype=None)
    assert stored["layers"]["attn"]["q"]["kernel"].dtype == jnp.float32
    assert stored["embed"]["tokens"].dtype == jnp.bfloat16  # what is not merged stays as it was
    origin = provenance(merged)
    assert origin["base"] == {"source": "test", "sha256": "a"}
    assert "adapters of rank 5" in origin["source"] and len(origin["sha256"]) == 64
    # By way of a Hugging Face folder it is the same.
    exported = run(config_of(tmp_path / "hf", {"kind": "checkpoint", "path": str(merged)}, target="hf")) / "model"
    back = run(config_of(tmp_path / "back", {"kind": "hf", "path": str(exported)})) / "model"
    jax.tree.map(np.testing.assert_array_equal, load_weights(back), load_weights(merged))


def test_a_base_that_the_adapters_were_not_trained_on_is_refused(
    base: Path, adapters: Params, tiny_model: ModelFiles, tmp_path: Path
) -> None:
    save_adapter(tmp_path / "adapter", adapters, LORA, base, {})
    other = tmp_path / "other"
    origin = {"source": "test", "sha256": "a", "steps": 7}  # the same model, trained on
    save_weights(other, tiny_model.params, tiny_model.config, tiny_model.tokenizer, origin)
    with pytest.raises(UserError, match=r"source.base: is test .* but the adapters in .* were trained on"):
        run(config_of(tmp_path / "out", {"kind": "peft", "path": str(tmp_path / "adapter"), "base": str(other)}))
    assert not (tmp_path / "out" / "model").exists()


def test_a_missing_adapter_is_found_before_converting(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = config_of(tmp_path / "out", {"kind": "peft", "path": str(tmp_path / "empty"), "base": str(base)})
    assert any("adapter_config.json: cannot be read" in finding.message for finding in check(config))
