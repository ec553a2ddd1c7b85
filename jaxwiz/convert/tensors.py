"""Models on their way from one format to another: tensors by Hugging Face name, read a block of rows at a time.

Every source (safetensors, pickled, GGUF, a checkpoint, parameters in memory) offers its tensors as a `TensorReader`,
and every target pulls them from there (`flow.py`), so that no more than a few blocks are ever held.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxwiz.checkpoint.arrays import open_array
from jaxwiz.checkpoint.weights import Header, params_folder
from jaxwiz.convert.names import ConversionError, Rule, require_tensors, rules_for, tensor_names, tied_copies
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.params import Params

_COMPARED_ROWS = 1024  # of two embeddings, at once


class TensorReader(Protocol):
    """Named tensors in Hugging Face's layout.

    Attributes:
      where: file or folder, for messages.
      shapes: name -> shape of every tensor, in the order in which they are best read.
      dtypes: name -> dtype that `read_rows` gives.
      faults: what is wrong with single tensors beyond names and shapes, as lines for a message: "NAME: found twice".
    """

    where: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    faults: tuple[str, ...]

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; may be called from several threads at once.

        Args:
          name: a key of `shapes`.
          start: first index along the first axis.
          stop: the index after the last. Of queries and keys both are multiples of the head size.
        """


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """A model, its weights not yet read.

    Attributes:
      tensors: the weights.
      config: the model's shape.
      tokenizer: folder with the tokenizer's files and nothing else.
      provenance: JSON-able; "source" says where the weights came from.
      digest: computes the SHA-256 of the source, None where there is nothing to hash; called while weights are written.
      hf_config: the config.json that belongs to the weights, None: there is none.
      template: name of the instruction template that the model was trained with, None: unknown.
      unpadded_vocab_size: V without rows that only pad it, None: there are none.
    """

    tensors: TensorReader
    config: ModelConfig
    tokenizer: Path
    provenance: dict[str, Any]
    digest: Callable[[], str | None] = lambda: None
    hf_config: dict[str, Any] | None = None
    template: str | None = None
    unpadded_vocab_size: int | None = None

    @functools.cached_property
    def params(self) -> Params:
        """All parameters in memory: for models that fit there."""
        return assemble(self.tensors, self.config)


def assemble(reader: TensorReader, config: ModelConfig) -> Params:
    """Returns the parameters that `reader` holds, as NumPy arrays in their source's dtype.

    Raises:
      ConversionError: tensors are missing, unknown, duplicate or mis-shaped; all are named.
    """
    require_tensors(reader.shapes, config, reader.where, reader.faults)
    params: Params = {}
    for rule in rules_for(config):
        names = tensor_names(rule, config)
        leaf = np.empty(rule.param_shape(config), leaf_dtype(reader, names))
        for layer, name in enumerate(names):
            target = leaf[layer] if rule.stacked else leaf
            target[...] = rule.to_param(reader.read_rows(name, 0, reader.shapes[name][0]), config)
        _set_leaf(params, rule.param, leaf)
    return params


def require_equal_copies(reader: TensorReader, config: ModelConfig) -> None:
    """Checks that what a model with tied embeddings carries twice is twice the same.

    Raises:
      ConversionError: the two differ.
    """
    for copy, original in tied_copies(reader.shapes, config):
        rows = reader.shapes[original][0]
        for start in range(0, rows, _COMPARED_ROWS):
            part = (start, min(start + _COMPARED_ROWS, rows))
            if not np.array_equal(reader.read_rows(copy, *part), reader.read_rows(original, *part)):
                raise ConversionError(
                    f"{reader.where}: {copy} differs from {original} though tie_word_embeddings is true; set it to "
                    "false in config.json if the two are meant to differ"
                )


def leaf_dtype(reader: TensorReader, names: list[str]) -> np.dtype:
    """Returns the dtype that holds all of a leaf's tensors exactly: layers may differ (norms patched into float32)."""
    return np.dtype(jnp.result_type(*(reader.dtypes[name] for name in names)))


class ParamsReader:
    """Parameters in memory as a `TensorReader`."""

    def __init__(self, params: Params, config: ModelConfig) -> None:
        self.where = "parameters in memory"
        self.faults: tuple[str, ...] = ()
        self._params = params
        self._config = config
        self._places = _places(config)
        self.shapes = {name: rule.tensor_shape(config) for name, (rule, _) in self._places.items()}
        self.dtypes = {name: get_leaf(params, rule.param).dtype for name, (rule, _) in self._places.items()}

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        rule, layer = self._places[name]
        leaf = np.asarray(get_leaf(self._params, rule.param))
        return tensor_of(rule, leaf, layer)[start:stop]


class CheckpointReader:
    """The arrays of a checkpoint as a `TensorReader`; opening reads only their metadata."""

    def __init__(self, folder: Path, header: Header) -> None:
        """Opens a checkpoint.

        Args:
          folder: the checkpoint.
          header: what `read_header` says of it.

        Raises:
          ConversionError: an array is not there.
        """
        self.where = str(folder)
        self.faults: tuple[str, ...] = ()
        config = header.config
        self._places = _places(config)
        self._config = config
        try:
            self._arrays = {rule.param: open_array(params_folder(folder), rule.param) for rule in rules_for(config)}
        except ValueError as error:
            raise ConversionError(
                f"{folder}: params/ is not what model.json describes ({_first_line(error)}); convert the model again"
            ) from None
        shapes = {rule.param: tuple(self._arrays[rule.param].shape) for rule in rules_for(config)}
        faults = [
            f"{rule.param}: has shape {list(shapes[rule.param])}, model.json asks for {list(rule.param_shape(config))}"
            for rule in rules_for(config)
            if shapes[rule.param] != rule.param_shape(config)
        ]
        if faults:
            raise ConversionError(f"{folder}: params/ is not what model.json describes\n  " + "\n  ".join(faults))
        self.shapes = {name: rule.tensor_shape(config) for name, (rule, _) in self._places.items()}
        self.dtypes = {
            name: np.dtype(jnp.dtype(header.tensor_dtypes.get(name, self._arrays[rule.param].dtype.name)))
            for name, (rule, _) in self._places.items()
        }

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        rule, layer = self._places[name]
        array = self._arrays[rule.param]
        layer_array = array[layer] if rule.stacked else array
        try:
            block = layer_array[rule.rows_of_param(start, stop, self._config)].read().result()
        except ValueError as error:
            raise ConversionError(
                f"{self.where}: {rule.param} cannot be read ({_first_line(error)}); copy or convert the model again"
            ) from None
        return rule.to_tensor(np.asarray(block)).astype(self.dtypes[name], copy=False)


def _places(config: ModelConfig) -> dict[str, tuple[Rule, int]]:
    return {name: (rule, layer) for rule in rules_for(config) for layer, name in enumerate(tensor_names(rule, config))}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300]


def get_leaf(params: Params, path: str) -> Any:
    """Returns the leaf at a dotted path."""
    node: Any = params
    for key in path.split("."):
        node = node[key]
    return node


def tensor_of(rule: Rule, leaf: np.ndarray, layer: int) -> np.ndarray:
    """Returns one layer's tensor (layer 0 where a leaf is not stacked) as Hugging Face keeps it, if possible a view."""
    return rule.to_tensor(leaf[layer] if rule.stacked else leaf)


def _set_leaf(params: Params, path: str, leaf: np.ndarray) -> None:
    *parents, last = path.split(".")
    node = params
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = leaf
