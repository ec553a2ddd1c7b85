"""Meta's files, split over two and over one, become the model that they were made from."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxwiz.config import parse_config
from jaxwiz.convert import flow
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.hf_out import write_hf_folder
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.run import check, run
from jaxwiz.convert.tensors import ModelFiles, ParamsReader
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import init_params

# Meta's name of a layer's matrix -> Hugging Face's, and the axis along which Meta splits it (llama/model.py of
# github.com/meta-llama/llama: ColumnParallelLinear splits the output, RowParallelLinear the input, ParallelEmbedding
# the width).
MATRICES = {
    "attention.wq": ("self_attn.q_proj", 0),
    "attention.wk": ("self_attn.k_proj", 0),
    "attention.wv": ("self_attn.v_proj", 0),
    "attention.wo": ("self_attn.o_proj", 1),
    "feed_forward.w1": ("mlp.gate_proj", 0),
    "feed_forward.w2": ("mlp.down_proj", 1),
    "feed_forward.w3": ("mlp.up_proj", 0),
}


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes `permute` of Hugging Face's conversion: rows 0, 1, 2, ... of a head are i and i + H/2 in turn there."""
    size = len(weight) // heads
    order = [head * size + place for head in range(heads) for i in range(size // 2) for place in (i, i + size // 2)]
    return weight[order]


@pytest.fixture
def meta_folder(
    tmp_path: Path,
    tiny_config: LlamaConfig,
    tiny_tokenizer_folder: Path,
    save_like_torch: Callable[[Path, dict[str, np.ndarray]], None],
) -> Callable[[int], Path]:
    """Writes a tiny model as Meta would, in some number of parts, and as Hugging Face would in hf/ beside."""
    config = dataclasses.replace(tiny_config, hidden_size=24)  # Meta has no head size of its own: it is D/N

    def write(parts: int) -> Path:
        params = jax.device_get(init_params(config, jax.random.key(0)))
        write_hf_folder(tmp_path / "hf", ModelFiles(ParamsReader(params, config), config, tiny_tokenizer_folder, {}))
        tensors = load_file(tmp_path / "hf" / "model.safetensors")
        whole: dict[str, tuple[np.ndarray, int | None]] = {
            "tok_embeddings.weight": (tensors["model.embed_tokens.weight"], 1),
            "norm.weight": (tensors["model.norm.weight"], None),
            "output.weight": (tensors["lm_head.weight"], 0),
            "rope.freqs": (np.ones(2, np.float32), None),
        }
        for layer in range(config.num_layers):
            ours, theirs = f"model.layers.{layer}", f"layers.{layer}"
            whole[f"{theirs}.attention_norm.weight"] = (tensors[f"{ours}.input_layernorm.weight"], None)
            whole[f"{theirs}.ffn_norm.weight"] = (tensors[f"{ours}.post_attention_layernorm.weight"], None)
            for name, (hf_name, axis) in MATRICES.items():
                whole[f"{theirs}.{name}.weight"] = (tensors[f"{ours}.{hf_name}.weight"], axis)
            for name, heads in (("wq", config.num_heads), ("wk", config.num_kv_heads)):
                weight, axis = whole[f"{theirs}.attention.{name}.weight"]
                whole[f"{theirs}.attention.{name}.weight"] = (_interleaved(weight, heads), axis)
        folder = tmp_path / "llama"
        folder.mkdir()
        for part in range(parts):
            split = {
                name: np.ascontiguousarray(tensor if axis is None else np.split(tensor, parts, axis)[part])
                for name, (tensor, axis) in whole.items()
            }
            save_like_torch(folder / f"consolidated.{part:02}.pth", split)
        shape = {"dim": config.hidden_size, "n_layers": 3, "n_heads": 6, "n_kv_heads": 2, "norm_eps": 1e-5}
        (folder / "params.json").write_text(json.dumps({**shape, "vocab_size": -1, "multiple_of": 256}))
        return folder

    return write


def _body(folder: Path, out: Path, **source: Any) -> dict[str, Any]:
    source = {"kind": "meta", "path": str(folder), "max_positions": 2048, "allow_pickle": True, **source}
    return {"out": str(out), "source": source, "target": "hf"}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
def test_the_model_comes_back(
    tmp_path: Path,
    meta_folder: Callable[[int], Path],
    tiny_sentencepiece: Path,
    parts: int,
    block_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = meta_folder(parts)
    shutil.copyfile(tiny_sentencepiece, tmp_path / "tokenizer.model")  # above the model's folder, as Meta has it
    monkeypatch.setattr(flow, "BLOCK_BYTES", block_bytes)  # small: blocks cross the borders of parts
    config = parse_config(_body(folder, tmp_path / "out"), ConvertConfig, "test")
    assert not [finding for finding in check(config) if finding.level == "error"]
    exported = run(config) / "model"
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "hf", exported))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)
    assert json.loads((exported / "config.json").read_text())["num_key_value_heads"] == 2


@pytest.mark.parametrize(
    ("change", "source", "message"),
    [
        (lambda folder: None, {"allow_pickle": False}, r"set source\.allow_pickle: true"),
        (lambda folder: (folder / "params.json").unlink(), {}, r"params\.json: cannot be read"),
        (
            lambda folder: (folder / "params.json").write_text("{}"),
            {},
            "dim: missing; n_layers: missing; n_heads: missing",
        ),
        (lambda folder: (folder / "consolidated.01.pth").unlink(), {}, r"o_proj\.weight: has shape \[24, 12\]"),
        (lambda folder: [path.unlink() for path in folder.glob("*.pth")], {}, r"no consolidated\.\*\.pth here"),
        (lambda folder: None, {}, r"no tokenizer\.model here or in the folder above"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, meta_folder: Callable[[int], Path], change: Any, source: dict[str, Any], message: str
) -> None:
    folder = meta_folder(2)
    change(folder)
    if "tokenizer" not in message:
        (folder / "tokenizer.model").touch()
    with pytest.raises(ConversionError, match=message):
        run(parse_config(_body(folder, tmp_path / "out", **source), ConvertConfig, "test"))


def test_scaled_rope_is_refused(tmp_path: Path, meta_folder: Callable[[int], Path]) -> None:
    folder = meta_folder(1)
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps(params | {"use_scaled_rope": True}))
    config = parse_config(_body(folder, tmp_path / "out"), ConvertConfig, "test")
    assert any("convert the model's Hugging Face folder" in finding.message for finding in check(config))
