"""A Hugging Face folder from a model: safetensors (sharded where large), config.json, tokenizer files unchanged."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxwiz.convert.flow import SINGLE_THREAD, Block, Flow, blocks_of, copy_turned
from jaxwiz.convert.hf_in import INDEX_FILE
from jaxwiz.convert.names import ConversionError, rules_for, tensor_names
from jaxwiz.convert.safetensors_file import make_header
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.files import UserError, atomic_folder, copy_files
from jaxwiz.model.config import ModelConfig, model_config_from_hf
from jaxwiz.text.tokenizer import load_tokenizer

DEFAULT_SHARD_BYTES = 5 << 30

# Name -> shape and dtype of the tensors of one file.
_Shard = dict[str, tuple[tuple[int, ...], np.dtype]]


def write_hf_folder(
    folder: Path,
    model: ModelFiles,
    dtype: str = "source",
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    flow: Flow = SINGLE_THREAD,
) -> dict[str, np.dtype]:
    """Writes a model as a folder that `transformers` loads; the folder is whole or absent.

    Args:
      folder: where it goes; what stands there is replaced once the new one is complete.
      model: what to write.
      dtype: "float32", "bfloat16", "float16", or "source": each tensor as the model holds it.
      shard_bytes: a file grows no larger than this unless a single tensor is.
      flow: how its weights are moved.

    Returns:
      the dtype of each tensor.

    Raises:
      ConversionError: the weights cannot be read, are not finite, or do not fit float16.
    """
    config = model.config
    names = [name for rule in rules_for(config) for name in tensor_names(rule, config)]
    dtypes = {name: model.tensors.dtypes[name] if dtype == "source" else np.dtype(jnp.dtype(dtype)) for name in names}
    shards = list(_shards({name: (model.tensors.shapes[name], dtypes[name]) for name in names}, shard_bytes))
    count = len(shards)
    files = (
        ["model.safetensors"] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    )
    with atomic_folder(folder) as partial, ExitStack() as opened:
        places: dict[str, tuple[int, int]] = {}  # name -> file descriptor, offset
        for file_name, shard in zip(files, shards, strict=True):
            header, offsets = make_header(shard)
            file = opened.enter_context(open(partial / file_name, "wb", buffering=0))
            file.write(header)
            places |= {name: (file.fileno(), offset) for name, offset in offsets.items()}

        def move(block: Block, rows: np.ndarray) -> None:
            target = np.empty(rows.shape, dtypes[block.name])
            with np.errstate(over="ignore"):
                copy_turned(target, rows.astype(target.dtype, copy=False))
            if target.dtype == np.float16 and rows.dtype != np.float16:
                _require_same_infinities(block.name, rows, target)
            descriptor, offset = places[block.name]
            row = math.prod(target.shape[1:]) * target.itemsize
            _write_at(descriptor, target, offset + block.start * row)

        flow.run("write safetensors", model.tensors, blocks_of(names, config), move)
        if count > 1:
            weight_map = {name: file_name for file_name, shard in zip(files, shards, strict=True) for name in shard}
            total = sum(_bytes(*entry) for shard in shards for entry in shard.values())
            _write_json(partial / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
        copy_files(model.tokenizer, partial)
        _write_json(partial / "config.json", _hf_config(model, dtype, dtypes[names[0]].name))
    return dtypes


def _shards(tensors: _Shard, shard_bytes: int) -> Iterator[_Shard]:
    shard: _Shard = {}
    used = 0
    for name, (shape, dtype) in tensors.items():
        size = _bytes(shape, dtype)
        if shard and used + size > shard_bytes:
            yield shard
            shard, used = {}, 0
        shard[name] = (shape, dtype)
        used += size
    yield shard


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _write_at(descriptor: int, values: np.ndarray, offset: int) -> None:
    rest = values.reshape(-1).view(np.uint8).data
    while rest:  # one call writes 2 GiB at most
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def _require_same_infinities(name: str, before: np.ndarray, after: np.ndarray) -> None:
    if np.count_nonzero(np.isinf(after)) > np.count_nonzero(np.isinf(before)):
        raise ConversionError(f"{name}: values beyond 65,504 do not fit float16; export as bfloat16 or float32")


def _hf_config(model: ModelFiles, asked_dtype: str, dtype: str) -> dict[str, Any]:
    """Returns config.json: the source's own where it still describes the model, else one made from our config."""
    original = model.hf_config
    if original is not None and _describes(original | {"vocab_size": model.config.vocab_size}, model.config):
        data = original | {"vocab_size": model.config.vocab_size}
    else:
        tokenizer = load_tokenizer(model.tokenizer)
        data = model.config.to_hf() | {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
    key = "dtype" if "dtype" in data else "torch_dtype"
    return data if asked_dtype == "source" and key in data else data | {key: dtype}


def _describes(hf_config: dict[str, Any], config: ModelConfig) -> bool:
    try:
        return model_config_from_hf(hf_config) == config
    except UserError:
        return False


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
