"""A model from a GGUF file: weights dequantised to float32, shape from the metadata, tokenizer from the vocabulary.

Differences to Hugging Face that are undone here: llama.cpp's names, its interleaved rotary halves in queries and keys,
and the output projection that is left out where it equals the embedding. The gguf package knows the file format and
every quantisation; this module knows what the numbers mean.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from jaxwiz.convert.gguf_tokenizer import write_tokenizer
from jaxwiz.convert.names import LLAMA_RULES, ConversionError, Rule, require_tensors, tensor_names
from jaxwiz.convert.tensors import ModelFiles, assemble, leaf_dtypes
from jaxwiz.files import sha256_of_file
from jaxwiz.model.config import LlamaConfig

# Metadata (below "llama.") that would change the computation, with the values that the decoder implements.
_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": (None, "none"),
    "attention.sliding_window": (None, 0),
    "expert_count": (None, 0),
}


class GgufReader:
    """The tensors of a GGUF file of architecture "llama" by Hugging Face name; see `TensorReader`."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            self._file = gguf.GGUFReader(path)
            self.metadata = {key: field.contents() for key, field in self._file.fields.items()}
        except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError) as error:
            raise ConversionError(f"{path}: not a GGUF file, or a damaged one ({error}); fetch it again") from None
        self._gguf_shapes = {tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in self._file.tensors}
        self.config = _model_config(self.metadata, self._gguf_shapes, self.where)
        self._rules: dict[str, Rule] = {}
        self._tensors: dict[str, Any] = {}
        hf_names = {
            gguf_name: (rule, hf_name)
            for rule in LLAMA_RULES
            for gguf_name, hf_name in zip(
                tensor_names(rule, self.config, "gguf"), tensor_names(rule, self.config), strict=True
            )
        }
        for tensor in self._file.tensors:
            rule, name = hf_names.get(tensor.name, (None, tensor.name))
            self._tensors[name] = tensor
            if rule is not None:
                self._rules[name] = rule
        self.shapes = {name: self._gguf_shapes[tensor.name] for name, tensor in self._tensors.items()}
        self.dtypes: dict[str, np.dtype] = dict.fromkeys(self._tensors, np.dtype(np.float32))
        self.duplicates: tuple[str, ...] = ()  # the gguf package refuses such files

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor as float32."""
        tensor = self._tensors[name]
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(self.shapes[name])
        except NotImplementedError:
            raise ConversionError(
                f"{self.where}: {tensor.name} is quantised as {tensor.tensor_type.name}, which the gguf package cannot "
                "dequantise; use another quantisation of this model"
            ) from None
        rule = self._rules[name]
        return split_rotary_halves(values, self.config.head_dim) if rule.rotary else values


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
    token_ids = write_tokenizer(reader.metadata, scratch, reader.where)
    params = assemble(reader, reader.config)
    provenance = {
        "source": source,
        "sha256": sha256_of_file(path),
        "dtypes": leaf_dtypes(params, reader.config),
        "hf_config": reader.config.to_hf() | token_ids,
    }
    return ModelFiles(params, reader.config, scratch, provenance)


def check_gguf(path: Path) -> LlamaConfig:
    """Returns the model config of a file whose names and shapes `read_gguf` will accept; reads no weights."""
    reader = GgufReader(path)
    require_tensors(reader.shapes, reader.config, reader.where)
    return reader.config


def split_rotary_halves(values: np.ndarray, head_dim: int) -> np.ndarray:
    """Returns query or key rows in Hugging Face's order, from llama.cpp's.

    llama.cpp rotates neighbouring rows (0,1), (2,3), ...; Hugging Face rotates row i with row i + H/2.

    Args:
      values: [heads * H, D], rows of each head interleaved.
      head_dim: H.
    """
    rows, width = values.shape
    pairs = values.reshape(rows // head_dim, head_dim // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def _model_config(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]], where: str) -> LlamaConfig:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ConversionError(
            f"{where}: general.architecture = {architecture!r}; must be 'llama', this decoder computes no other"
        )
    values = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    needed = ("embedding_length", "feed_forward_length", "block_count", "attention.head_count", "context_length")
    faults = [f"llama.{key}: missing" for key in needed if key not in values]
    faults += [
        f"llama.{key} = {values[key]!r}: not supported by this decoder"
        for key, allowed in _IMPLEMENTED.items()
        if values.get(key) not in allowed
    ]
    if "token_embd.weight" not in shapes:
        faults.append("token_embd.weight: missing")
    if faults:
        raise ConversionError(f"{where}: " + "; ".join(faults))
    heads = values["attention.head_count"]
    head_dim = values.get("attention.key_length", values["embedding_length"] // heads)
    rotated = values.get("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise ConversionError(
            f"{where}: llama.rope.dimension_count = {rotated}: must be the head size {head_dim}, "
            "this decoder rotates whole heads"
        )
    return LlamaConfig(
        vocab_size=shapes["token_embd.weight"][0],
        hidden_size=values["embedding_length"],
        intermediate_size=values["feed_forward_length"],
        num_layers=values["block_count"],
        num_heads=heads,
        num_kv_heads=values.get("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=_shortest(values.get("rope.freq_base", 10_000.0)),
        norm_epsilon=_shortest(values.get("attention.layer_norm_rms_epsilon", 1e-5)),
        max_positions=values["context_length"],
        tie_embeddings="output.weight" not in shapes,
    )


def _shortest(value: float) -> float:
    """Returns the number that was meant: GGUF keeps 1e-5 as a float32, which as a float64 reads 9.99999974e-06."""
    return float(str(np.float32(value)))
