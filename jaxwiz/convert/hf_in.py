"""A model from a Hugging Face folder: config.json, safetensors (one file or shards with an index), tokenizer files.

Pickled weights (`.bin`, `.pth`) are refused: unpickling runs whatever code the file holds.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxwiz.convert.names import ConversionError, require_tensors
from jaxwiz.convert.tensors import ModelFiles, assemble, leaf_dtypes
from jaxwiz.files import UserError, sha256_of_bytes, sha256_of_file
from jaxwiz.model.config import LlamaConfig
from jaxwiz.text.tokenizer import TOKENIZER_FILES

INDEX_FILE = "model.safetensors.index.json"

# A tokenizer and the generation defaults; these travel unchanged, everything else stays behind.
COMPANION_FILES = (*TOKENIZER_FILES, "generation_config.json")

_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}


class SafetensorsReader:
    """The tensors of a Hugging Face folder; see `TensorReader`. Opening reads only the files' headers."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._files: dict[str, Any] = {}
        duplicates, wrong_dtypes = [], []
        for path in weight_files(folder):
            file = _open(path)
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                if name in self.shapes:
                    duplicates.append(name)
                part = file.get_slice(name)
                self.shapes[name] = tuple(part.get_shape())
                self._files[name] = file
                if part.get_dtype() in _DTYPES:
                    self.dtypes[name] = _DTYPES[part.get_dtype()]
                else:
                    wrong_dtypes.append(f"{name} is {part.get_dtype()}")
        self.duplicates = tuple(duplicates)
        if wrong_dtypes:
            raise ConversionError(
                f"{folder}: weights must be F32, F16 or BF16, quantised ones must be dequantised first; "
                + ", ".join(wrong_dtypes)
            )

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor."""
        return self._files[name].get_tensor(name)


def read_hf_folder(folder: Path, scratch: Path, source: str) -> ModelFiles:
    """Returns the model of a Hugging Face folder.

    Args:
      folder: config.json, safetensors and tokenizer files.
      scratch: an empty folder that the tokenizer's files are copied into; it must outlive the result.
      source: what provenance calls this source.

    Raises:
      ConversionError: what is missing, damaged or of another kind.
    """
    hf_config = read_hf_config(folder)
    config = LlamaConfig.from_hf(hf_config)
    params = assemble(SafetensorsReader(folder), config)
    _copy_tokenizer(folder, scratch)
    provenance = {
        "source": source,
        "sha256": _content_digest(folder),
        "dtypes": leaf_dtypes(params, config),
        "hf_config": hf_config,
    }
    return ModelFiles(params, config, scratch, provenance)


def check_hf_folder(folder: Path) -> LlamaConfig:
    """Returns the model config of a folder that `read_hf_folder` will accept, from the files' headers alone."""
    config = LlamaConfig.from_hf(read_hf_config(folder))
    reader = SafetensorsReader(folder)
    require_tensors(reader.shapes, config, reader.where, reader.duplicates)
    _tokenizer_files(folder)
    return config


def read_hf_config(folder: Path) -> dict[str, Any]:
    """Returns the parsed config.json of a folder."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConversionError(
            f"{path}: cannot be read; a Hugging Face folder holds config.json, safetensors and tokenizer files"
        ) from None
    except ValueError as error:
        raise ConversionError(f"{path}: not valid JSON ({error}); fetch the model again") from None
    if not isinstance(data, dict):
        raise ConversionError(f"{path}: holds {type(data).__name__}, must be a JSON object; fetch the model again")
    return data


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a folder, those that the index names where there is one."""
    index = folder / INDEX_FILE
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ConversionError(f"{index}: not an index of safetensors ({error!r}); fetch the model again") from None
        paths = [folder / name for name in names]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ConversionError(f"{index}: names {', '.join(missing)}, not in the folder; fetch the missing files")
        return paths
    paths = sorted(folder.glob("*.safetensors"))
    if paths:
        return paths
    pickled = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
    if pickled:
        raise ConversionError(
            f"{folder}: only pickled weights here ({', '.join(pickled[:3])}), which run any code when loaded; "
            "use a revision with safetensors or convert them with their own tools"
        )
    raise ConversionError(f"{folder}: no *.safetensors here; a Hugging Face folder has one or several")


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{path}: damaged or truncated safetensors ({error}); fetch the file again") from None


def _tokenizer_files(folder: Path) -> list[Path]:
    paths = [folder / name for name in COMPANION_FILES if (folder / name).is_file()]
    if not {"tokenizer.json", "tokenizer.model"} & {path.name for path in paths}:
        raise ConversionError(f"{folder}: neither tokenizer.json nor tokenizer.model here; add the tokenizer's files")
    return paths


def _copy_tokenizer(folder: Path, target: Path) -> None:
    for path in _tokenizer_files(folder):
        shutil.copyfile(path, target / path.name)


def _content_digest(folder: Path) -> str:
    """Returns one SHA-256 over config.json and the weight files, by name and content."""
    try:
        lines = [f"{path.name}\0{sha256_of_file(path)}\n" for path in (folder / "config.json", *weight_files(folder))]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error}); check the disk") from None
    return sha256_of_bytes("".join(lines).encode())
