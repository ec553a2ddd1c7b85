"""A model from a GGUF file: weights, shape from the metadata, tokenizer from the vocabulary.

Differences to Hugging Face that are undone here: llama.cpp's names, its interleaved rotary halves in queries and keys,
and the output projection that is left out where it equals the embedding. The gguf package knows the file format and
every quantisation; this module knows what the numbers mean. Rows are read as they are asked for, never mapped into
memory.
"""

import math
from pathlib import Path
from typing import Any

import gguf
import jax.numpy as jnp
import numpy as np

from jaxwiz.convert.gguf_config import ROPE_FACTORS, model_config
from jaxwiz.convert.gguf_tokenizer import write_tokenizer
from jaxwiz.convert.names import LLAMA_RULES, ConversionError, Rule, require_tensors, tensor_names
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.files import sha256_of_file
from jaxwiz.model.config import LlamaConfig

_Type = gguf.GGMLQuantizationType

# What is read as it is; all others are quantised, and become float32.
_PLAIN_DTYPES: dict[_Type, np.dtype] = {
    _Type.F32: np.dtype(np.float32),
    _Type.F16: np.dtype(np.float16),
    _Type.BF16: np.dtype(jnp.bfloat16),
}


class GgufReader:
    """The tensors of a GGUF file of architecture "llama" by Hugging Face name; see `TensorReader`."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._path = path
        file = _open(path)
        self.metadata = {key: field.contents() for key, field in file.fields.items()}
        _require_readable_types(file, self.where)
        found = {tensor.name: tensor for tensor in file.tensors}
        shapes = {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in found.items()}
        rope_factors = _rows(path, found.pop(ROPE_FACTORS), 0, None) if ROPE_FACTORS in found else None
        self.config = model_config(self.metadata, shapes, rope_factors, self.where)
        self._rules: dict[str, Rule] = {}
        hf_names: dict[str, str] = {}
        for rule in LLAMA_RULES:
            names = zip(tensor_names(rule, self.config, "gguf"), tensor_names(rule, self.config), strict=True)
            for gguf_name, hf_name in names:
                hf_names[gguf_name] = hf_name
                self._rules[hf_name] = rule
        self._tensors = {hf_names.get(name, name): tensor for name, tensor in found.items()}
        self.shapes = {hf_names.get(name, name): shapes[name] for name in found}
        self.dtypes: dict[str, np.dtype] = {
            name: _PLAIN_DTYPES.get(tensor.tensor_type, np.dtype(np.float32)) for name, tensor in self._tensors.items()
        }
        self.faults: tuple[str, ...] = ()  # the gguf package refuses files with duplicates

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor, dequantised; see `TensorReader.read_rows`."""
        values = _rows(self._path, self._tensors[name], start, stop)
        return split_rotary_halves(values, self.config.head_dim) if self._rules[name].rotary else values


class _CheckedReader(gguf.GGUFReader):
    """The gguf package's reader, which by itself takes what lies beyond the end of a file for empty arrays."""

    def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> np.ndarray:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > self.data.nbytes:
            raise ValueError(f"it has {self.data.nbytes:,} bytes and refers to byte {end:,}")
        return super()._get(offset, dtype, count, override_order)


def _open(path: Path) -> gguf.GGUFReader:
    try:
        file = _CheckedReader(path)
        for field in file.fields.values():
            field.contents()
    # Damaged bytes can be any number anywhere, and the package raises whatever its parsing stumbles over.
    except (ValueError, LookupError, OSError, ArithmeticError, TypeError, MemoryError) as error:
        raise ConversionError(
            f"{path}: not a GGUF file, or a damaged or truncated one ({error}); fetch it again"
        ) from None
    if file.byte_order != "I":
        raise ConversionError(f"{path}: made for a machine of another byte order; use the usual, little-endian file")
    return file


def _require_readable_types(file: gguf.GGUFReader, where: str) -> None:
    unreadable = []
    for kind in sorted({tensor.tensor_type for tensor in file.tensors}):
        try:
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            unreadable.append(kind.name)
    if unreadable:
        raise ConversionError(
            f"{where}: holds tensors of type {', '.join(unreadable)}, which the gguf package cannot dequantise; use "
            "another quantisation of this model"
        )


def _rows(path: Path, tensor: gguf.ReaderTensor, start: int, stop: int | None) -> np.ndarray:
    """Returns a part of a tensor as the file has it; dequantised to float32 unless its values are plain numbers."""
    *outer, width = map(int, reversed(tensor.shape))
    count = math.prod(outer)
    rows = slice(start, stop) if outer else slice(None)  # of a vector, all is read
    first, last, _ = rows.indices(count)
    row_bytes = tensor.n_bytes // count
    data = np.fromfile(path, np.uint8, (last - first) * row_bytes, offset=tensor.data_offset + first * row_bytes)
    plain = _PLAIN_DTYPES.get(tensor.tensor_type)
    data = data.reshape(last - first, row_bytes)
    values = gguf.quants.dequantize(data, tensor.tensor_type) if plain is None else data.view(plain)
    return values if outer else values.reshape(width)[start:stop]


def read_gguf(path: Path, scratch: Path, source: str) -> ModelFiles:
    """Returns the model of a GGUF file.

    Args:
      path: the file.
      scratch: an empty folder that the tokenizer's files are written into; it must outlive the result.
      source: what provenance calls this source.

    Raises:
      ConversionError: the file is damaged, or of an architecture, shape or tokenizer that is not supported.
    """
    reader = GgufReader(path)
    require_tensors(reader.shapes, reader.config, reader.where, reader.faults)
    token_ids = write_tokenizer(reader.metadata, scratch, reader.where)
    return ModelFiles(
        tensors=reader,
        config=reader.config,
        tokenizer=scratch,
        provenance={"source": source},
        digest=lambda: sha256_of_file(path),
        hf_config=reader.config.to_hf() | token_ids,
    )


def check_gguf(path: Path) -> LlamaConfig:
    """Returns the model config of a file whose names and shapes `read_gguf` will accept; reads no weights."""
    reader = GgufReader(path)
    require_tensors(reader.shapes, reader.config, reader.where, reader.faults)
    return reader.config


def split_rotary_halves(values: np.ndarray, head_dim: int) -> np.ndarray:
    """Returns query or key rows in Hugging Face's order, from llama.cpp's.

    llama.cpp rotates neighbouring rows (0,1), (2,3), ...; Hugging Face rotates row i with row i + H/2.

    Args:
      values: a weight [heads * H, D] or a bias [heads * H], the rows of each head interleaved.
      head_dim: H.
    """
    pairs = values.reshape(-1, head_dim // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
