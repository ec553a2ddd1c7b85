"""A Hugging Face folder from a model: safetensors (sharded where large), config.json, tokenizer files unchanged."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from jaxwiz.console import progress
from jaxwiz.convert.hf_in import INDEX_FILE
from jaxwiz.convert.names import Rule, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles, get_leaf, tensor_of
from jaxwiz.files import UserError, atomic_folder
from jaxwiz.model.config import LlamaConfig
from jaxwiz.text.tokenizer import load_tokenizer

MAX_SHARD_BYTES = 5_000_000_000

# One tensor to write: its name, its rule, its layer and its dtype.
_Planned = tuple[str, Rule, int, np.dtype]


def write_hf_folder(
    folder: Path, model: ModelFiles, dtype: str = "source", max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes a model as a folder that `transformers` loads; the folder is whole or absent.

    Args:
      folder: where it goes; what stands there is replaced once the new one is complete.
      model: what to write.
      dtype: "float32", "bfloat16", "float16", or "source": each leaf as provenance says its source held it, float32
        where provenance says nothing.
      max_shard_bytes: a file grows no larger than this unless a single tensor is.
    """
    shards = _plan(model, dtype, max_shard_bytes)
    count = len(shards)
    names = (
        ["model.safetensors"] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    )
    with atomic_folder(folder) as partial:
        with progress("write weights", sum(map(len, shards)), "tensors") as advance:
            for file_name, shard in zip(names, shards, strict=True):
                tensors = {
                    name: tensor_of(rule, np.asarray(get_leaf(model.params, rule.param)), layer, model.config, kind)
                    for name, rule, layer, kind in shard
                }
                save_file(tensors, partial / file_name, metadata={"format": "pt"})
                advance(len(tensors))
        if count > 1:
            weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name, *_ in shard}
            total = sum(_bytes(planned, model.config) for shard in shards for planned in shard)
            _write_json(partial / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
        for path in sorted(model.tokenizer.iterdir()):
            shutil.copyfile(path, partial / path.name)
        _write_json(partial / "config.json", _hf_config(model, str(shards[0][0][3])))
        for file_name in names:  # safetensors makes files that only their owner may read
            shutil.copymode(partial / "config.json", partial / file_name)


def _plan(model: ModelFiles, dtype: str, max_shard_bytes: int) -> list[list[_Planned]]:
    """Returns the tensors of each file, in the order of the name table."""
    source_dtypes = model.provenance.get("dtypes", {})
    shards: list[list[_Planned]] = [[]]
    used = 0
    for rule in rules_for(model.config):
        leaf_dtype = jnp.dtype(source_dtypes.get(rule.param, "float32") if dtype == "source" else dtype)
        for layer, name in enumerate(tensor_names(rule, model.config)):
            planned = (name, rule, layer, leaf_dtype)
            size = _bytes(planned, model.config)
            if shards[-1] and used + size > max_shard_bytes:
                shards.append([])
                used = 0
            shards[-1].append(planned)
            used += size
    return shards


def _bytes(planned: _Planned, config: LlamaConfig) -> int:
    _, rule, _, dtype = planned
    return math.prod(rule.tensor_shape(config)) * dtype.itemsize


def _hf_config(model: ModelFiles, dtype: str) -> dict[str, Any]:
    """Returns config.json: the source's own where it still describes the model, else one made from our config."""
    original = model.provenance.get("hf_config")
    if original is not None and _describes(original, model.config):
        data = dict(original)
    else:
        tokenizer = load_tokenizer(model.tokenizer)
        data = model.config.to_hf() | {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
    key = "dtype" if "dtype" in data else "torch_dtype"
    return data | {key: dtype}


def _describes(hf_config: dict[str, Any], config: LlamaConfig) -> bool:
    try:
        return LlamaConfig.from_hf(hf_config) == config
    except UserError:
        return False


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
