"""A model from a Hugging Face folder: config.json, weights (one file or shards with an index), tokenizer files.

Weights are safetensors. PyTorch's pickled `pytorch_model*.bin` are refused unless they are explicitly allowed, and even
then are read by `pickled.py` without running what they hold.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz.convert.names import ConversionError, require_tensors
from jaxwiz.convert.pickled import read_pickled
from jaxwiz.convert.safetensors_file import DTYPES, StoredTensor, read_header, read_stored_rows
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.files import sha256_of_bytes, sha256_of_file
from jaxwiz.model.config import ModelConfig, model_config_from_hf
from jaxwiz.text.tokenizer import TOKENIZER_FILES

INDEX_FILE = "model.safetensors.index.json"
_PICKLED_INDEX_FILE = "pytorch_model.bin.index.json"

# A tokenizer and the generation defaults; these travel unchanged, everything else stays behind.
COMPANION_FILES = (*TOKENIZER_FILES, "chat_template.json", "generation_config.json")


class FolderReader:
    """The tensors of a Hugging Face folder; see `TensorReader`. Opening reads only the files' headers."""

    def __init__(self, folder: Path, allow_pickle: bool = False) -> None:
        """Opens a folder.

        Args:
          folder: the folder.
          allow_pickle: whether pickled weights may be read where there are no safetensors.

        Raises:
          ConversionError: no weights, or a file that is damaged or of a kind that is not read.
        """
        self.where = str(folder)
        index, paths, read = _weight_files(folder, allow_pickle)
        self.paths = paths
        self._places: dict[str, StoredTensor] = {}
        faults = []
        for path in paths:
            for name, place in read(path).items():
                if name in self._places:
                    faults.append(f"{name}: found more than once, in {self._places[name].path.name} and {path.name}")
                self._places[name] = place
                if place.dtype not in DTYPES:
                    faults.append(
                        f"{name}: is {place.dtype}, weights must be F32, F16 or BF16; dequantise quantised ones first"
                    )
        if index is not None:
            faults += _index_faults(index, self._places)
        self.faults = tuple(sorted(faults))
        self.shapes = {name: place.shape for name, place in self._places.items()}
        self.dtypes = {name: DTYPES[place.dtype] for name, place in self._places.items() if place.dtype in DTYPES}

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        return read_stored_rows(self._places[name], start, stop)


def open_hf_folder(folder: Path, scratch: Path, source: str, allow_pickle: bool = False) -> ModelFiles:
    """Returns the model of a Hugging Face folder; whether its tensors fit its config is not checked here.

    Args:
      folder: config.json, weights and tokenizer files.
      scratch: an empty folder that the tokenizer's files are copied into; it must outlive the result.
      source: what provenance calls this source.
      allow_pickle: whether pickled weights may be read where there are no safetensors.

    Raises:
      ConversionError: what is missing, damaged or of another kind.
    """
    hf_config = read_hf_config(folder)
    config = model_config_from_hf(hf_config)
    reader = FolderReader(folder, allow_pickle)
    for path in _companions(folder):
        shutil.copyfile(path, scratch / path.name)
    digest = partial(content_digest, [folder / "config.json", *reader.paths])
    return ModelFiles(reader, config, scratch, {"source": source}, digest, hf_config)


def check_hf_folder(folder: Path, allow_pickle: bool = False) -> ModelConfig:
    """Returns the model config of a folder that `open_hf_folder` will accept, from the files' headers alone."""
    config = model_config_from_hf(read_hf_config(folder))
    reader = FolderReader(folder, allow_pickle)
    require_tensors(reader.shapes, config, reader.where, reader.faults)
    _companions(folder)
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


def _weight_files(
    folder: Path, allow_pickle: bool
) -> tuple[Path | None, list[Path], Callable[[Path], dict[str, StoredTensor]]]:
    """Returns a folder's index, its weight files (those that the index names), and what reads their headers."""
    for index_name, pattern, read in (
        (INDEX_FILE, "*.safetensors", read_header),
        (_PICKLED_INDEX_FILE, "pytorch_model*.bin", read_pickled),
    ):
        index, paths = folder / index_name, sorted(folder.glob(pattern))
        if not index.exists() and not paths:
            continue
        if read is read_pickled and not allow_pickle:
            break
        if not index.exists():
            return None, paths, read
        paths = [folder / name for name in sorted(set(_read_index(index).values()))]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ConversionError(f"{index}: names {', '.join(missing)}, not in the folder; fetch the missing files")
        return index, paths, read
    pickled = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
    if pickled:
        raise ConversionError(
            f"{folder}: only pickled weights here ({', '.join(pickled[:3])}), and a pickle can run any program when it "
            "is loaded; use a revision with safetensors, or set source.allow_pickle: true, by which nothing but "
            "tensors is unpickled (of pytorch_model*.bin; of Meta's consolidated.*.pth with source.kind: meta)"
        )
    raise ConversionError(f"{folder}: no *.safetensors here; a Hugging Face folder has one or several")


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{index}: not an index of weights ({error!r}); fetch the model again") from None


def _index_faults(index: Path, places: dict[str, StoredTensor]) -> list[str]:
    weight_map = _read_index(index)
    faults = [
        f"{name}: in {place.path.name}, but not in the index"
        for name, place in places.items()
        if name not in weight_map
    ]
    for name, file in weight_map.items():
        found = places[name].path.name if name in places else "no file"
        if found != file:
            faults.append(f"{name}: the index says {file}, found in {found}")
    return faults


def _companions(folder: Path) -> list[Path]:
    paths = [folder / name for name in COMPANION_FILES if (folder / name).is_file()]
    if not {"tokenizer.json", "tokenizer.model"} & {path.name for path in paths}:
        raise ConversionError(f"{folder}: neither tokenizer.json nor tokenizer.model here; add the tokenizer's files")
    return paths


def content_digest(paths: list[Path]) -> str:
    """Returns one SHA-256 over files, by name and content."""
    return sha256_of_bytes("".join(f"{path.name}\0{sha256_of_file(path)}\n" for path in paths).encode())
