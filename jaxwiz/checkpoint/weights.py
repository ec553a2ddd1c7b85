"""A weights checkpoint: one self-describing folder that every stage reads and writes.

    model.json     format, jaxwiz version, model config, provenance
    tokenizer/     the tokenizer's own files, unchanged
    params/        the parameters, stacked over layers (Orbax)

Written beside its target and renamed, so a folder with this name is always complete.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxwiz import __version__
from jaxwiz.config import dump_config, parse_config
from jaxwiz.files import UserError, atomic_folder, write_text
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params, abstract_params

FORMAT = "jaxwiz.checkpoint.v1"


class CheckpointError(UserError):
    """A folder that is no usable checkpoint; the message names folder, fault and remedy."""


def save_weights(
    folder: Path, params: Params, config: LlamaConfig, tokenizer: Path, provenance: dict[str, Any]
) -> None:
    """Writes a checkpoint to `folder`, replacing one that stands there only once the new one is complete.

    Args:
      folder: where it goes.
      params: parameters of a model of `config`, on any devices.
      config: the model's shape.
      tokenizer: folder of tokenizer files, copied as they are.
      provenance: where the weights came from; JSON-able.
    """
    with atomic_folder(folder) as partial:
        shutil.copytree(tokenizer, partial / "tokenizer")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((partial / "params").absolute(), params)
        header = {
            "format": FORMAT,
            "jaxwiz": __version__,
            "config": dump_config(config),
            "provenance": provenance,
        }
        write_text(partial / "model.json", json.dumps(header, indent=1) + "\n")


def load_weights(folder: Path, shardings: dict[str, Any] | None = None, dtype: jnp.dtype = jnp.float32) -> Params:
    """Returns a checkpoint's parameters.

    Args:
      folder: the checkpoint.
      shardings: a `jax.sharding.Sharding` for each parameter; None: all on the first device.
      dtype: the dtype to load as.

    Raises:
      CheckpointError: no checkpoint, or its arrays are not those of its config.
    """
    config = load_model_config(folder)
    abstract = abstract_params(config, dtype)
    if shardings is None:
        shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), abstract)
    with ocp.StandardCheckpointer() as checkpointer:
        path = (folder / "params").absolute()
        _require_same_shapes(folder, abstract, checkpointer.metadata(path).item_metadata)
        targets = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
        )
        return checkpointer.restore(path, targets)


def load_model_config(folder: Path) -> LlamaConfig:
    """Returns the model config of a checkpoint; raises CheckpointError if there is none."""
    return parse_config(_header(folder)["config"], LlamaConfig, str(folder / "model.json"))


def provenance(folder: Path) -> dict[str, Any]:
    """Returns where a checkpoint's weights came from; raises CheckpointError if there is no checkpoint."""
    return _header(folder)["provenance"]


def tokenizer_folder(folder: Path) -> Path:
    """Returns the folder of a checkpoint's tokenizer files; raises CheckpointError if there is no checkpoint."""
    _header(folder)
    return folder / "tokenizer"


def _header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"{folder}: no checkpoint here (no model.json); `jaxwiz convert` makes one from a Hugging Face folder"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'model.json'}: damaged ({error}); convert or copy the model again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / 'model.json'}: not a checkpoint of format {FORMAT!r}; convert the model again"
        )
    return header


def _require_same_shapes(folder: Path, expected: Params, stored: Any) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}

    wanted, found = shapes(expected), shapes(stored)
    if wanted != found:
        faults = [
            f"{name}: config says {wanted.get(name, 'absent')}, params/ holds {found.get(name, 'absent')}"
            for name in sorted(wanted.keys() | found.keys())
            if wanted.get(name) != found.get(name)
        ]
        raise CheckpointError(f"{folder}: parameters do not match model.json; convert again\n  " + "\n  ".join(faults))
