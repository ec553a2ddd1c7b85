"""Parameter trees from named tensors and back, one tensor at a time.

A reader (safetensors, GGUF) offers its tensors by Hugging Face name; `assemble` writes each into its place in the
stacked leaf, so that the tree and one tensor are all that is held. `tensor_of` is the way back.
"""

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxwiz.console import progress
from jaxwiz.convert.names import ConversionError, Rule, require_tensors, rules_for, tensor_names, tied_copies
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params


class TensorReader(Protocol):
    """Named tensors in Hugging Face's layout.

    Attributes:
      where: file or folder, for messages.
      shapes: name -> shape of every tensor, without reading it.
      dtypes: name -> dtype that `read` gives.
      duplicates: names found more than once.
    """

    where: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    duplicates: tuple[str, ...]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor."""


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """A model on its way from one format to another.

    Attributes:
      params: parameters as `model/params.py` lays them out, each leaf in its source's dtype.
      config: the model's shape.
      tokenizer: folder with the tokenizer's files and nothing else.
      provenance: JSON-able; "source" and "sha256" say where the weights came from, "dtypes" names each leaf's dtype
        there, "hf_config" is the config.json that belongs to them.
    """

    params: Params
    config: LlamaConfig
    tokenizer: Path
    provenance: dict[str, Any]


def assemble(reader: TensorReader, config: LlamaConfig) -> Params:
    """Returns the parameters that `reader` holds, as NumPy arrays in their source's dtype.

    Raises:
      ConversionError: tensors are missing, unknown, duplicate or mis-shaped; all are named.
    """
    require_tensors(reader.shapes, config, reader.where, reader.duplicates)
    for copy, original in tied_copies(reader.shapes, config):
        if not np.array_equal(reader.read(copy), reader.read(original)):
            raise ConversionError(
                f"{reader.where}: {copy} differs from {original} though tie_word_embeddings is true; "
                "set it to false in config.json if the two are meant to differ"
            )
    params: Params = {}
    rules = rules_for(config)
    total = sum(len(tensor_names(rule, config)) for rule in rules)
    with progress("read weights", total, "tensors") as advance:
        for rule in rules:
            names = tensor_names(rule, config)
            # Layers of one leaf may differ in dtype (norms patched into float32): the widest holds all exactly.
            dtype = jnp.result_type(*(reader.dtypes[name] for name in names))
            leaf = np.empty(rule.param_shape(config), dtype)
            for layer, name in enumerate(names):
                target = leaf[layer] if rule.stacked else leaf
                target[...] = rule.to_param(reader.read(name), config)
                advance()
            _set_leaf(params, rule.param, leaf)
    return params


def leaf_dtypes(params: Params, config: LlamaConfig) -> dict[str, str]:
    """Returns the dtype name of every leaf, by dotted path."""
    return {rule.param: str(get_leaf(params, rule.param).dtype) for rule in rules_for(config)}


def get_leaf(params: Params, path: str) -> Any:
    """Returns the leaf at a dotted path."""
    node: Any = params
    for key in path.split("."):
        node = node[key]
    return node


def tensor_of(rule: Rule, leaf: np.ndarray, layer: int, config: LlamaConfig, dtype: np.dtype) -> np.ndarray:
    """Returns the tensor of one layer (0 where the leaf is not stacked) in Hugging Face's layout, contiguous.

    Raises:
      ConversionError: a value is too large for `dtype`.
    """
    param = leaf[layer] if rule.stacked else leaf
    with np.errstate(over="ignore"):
        tensor = np.ascontiguousarray(rule.to_tensor(param, config), dtype)
    if dtype == np.float16 and np.isinf(tensor).any():
        raise ConversionError(f"{rule.param}: values beyond 65,504 do not fit float16; export as bfloat16 or float32")
    return tensor


def _set_leaf(params: Params, path: str, leaf: np.ndarray) -> None:
    *parents, last = path.split(".")
    node = params
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = leaf
