"""A weights checkpoint: one self-describing folder that every stage reads and writes.

    model.json     format, jaxwiz version, and the `Header`: model config, template, provenance, what an export restores
    tokenizer/     the tokenizer's own files and the generation defaults, unchanged
    params/        the parameters, stacked over layers, each leaf in the dtype of its source (`checkpoint/arrays.py`)

Written beside its target and renamed, so a folder with this name is always complete.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxwiz import __version__
from jaxwiz.checkpoint.arrays import damaged_chunks
from jaxwiz.config import dump_config
from jaxwiz.files import UserError, atomic_folder, copy_files, partial_folder, write_text
from jaxwiz.model.config import ModelConfig, parse_model_config
from jaxwiz.model.params import Params, abstract_params

FORMAT = "jaxwiz.checkpoint.v2"

# Chunks of what Orbax writes: no larger than this and of one layer, so that an export reads layer by layer.
_CHUNK_BYTES = 32 << 20


class CheckpointError(UserError):
    """A folder that is no usable checkpoint; the message names folder, fault and remedy."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What model.json says of the weights beside it.

    Attributes:
      config: the model's shape.
      provenance: where the weights came from; JSON-able, "source" and "sha256" at least.
      template: name of the instruction template that the model was trained with (`text/templates.py`), None: unknown.
      unpadded_vocab_size: V without the rows that only pad it for sharding, None: there are none. An export cuts to it.
      hf_config: the config.json that the weights came with, None: there was none. An export keeps its keys.
      tensor_dtypes: Hugging Face name -> dtype of each tensor that was narrower than the leaf it lies in now.
    """

    config: ModelConfig
    provenance: dict[str, Any]
    template: str | None = None
    unpadded_vocab_size: int | None = None
    hf_config: dict[str, Any] | None = None
    tensor_dtypes: dict[str, str] = dataclasses.field(default_factory=dict)


def save_weights(
    folder: Path,
    params: Params,
    config: ModelConfig,
    tokenizer: Path,
    provenance: dict[str, Any],
    *,
    template: str | None = None,
    base: Path | None = None,
) -> None:
    """Writes a checkpoint to `folder`, replacing one that stands there only once the new one is complete.

    Where JAX has several processes, each calls it and writes its parts of the arrays, and process 0 the rest.

    Args:
      folder: where it goes.
      params: parameters of a model of `config`, on any devices.
      config: the model's shape.
      tokenizer: folder of tokenizer files, copied as they are.
      provenance: where the weights came from; JSON-able.
      template: name of the instruction template that the model was trained with; None: that of `base`.
      base: the checkpoint that these weights were trained from; what an export restores is taken over from it.
    """
    header = Header(config, provenance, template)
    if base is not None:
        origin = read_header(base)
        header = dataclasses.replace(
            header,
            template=template or origin.template,
            unpadded_vocab_size=origin.unpadded_vocab_size,
            hf_config=_without_dtype(origin.hf_config),
        )
    if jax.process_index() > 0:
        _save_arrays(partial_folder(folder) / "params", params)
        return
    with atomic_folder(folder) as partial:
        copy_files(tokenizer, partial / "tokenizer")
        _save_arrays(partial / "params", params)
        write_header(partial, header)


def _save_arrays(folder: Path, params: Params) -> None:
    """Returns when all processes have written what they have; Orbax makes them wait for process 0's folder."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params, save_args=_chunking(params))


def load_weights(
    folder: Path, shardings: dict[str, Any] | None = None, dtype: jnp.dtype | None = jnp.float32
) -> Params:
    """Returns a checkpoint's parameters.

    Args:
      folder: the checkpoint.
      shardings: a `jax.sharding.Sharding` for each parameter, the same in all processes, each of which calls it; None:
        all on the first device of this process, which needs no other.
      dtype: the dtype to load as; None: each leaf as it is stored.

    Raises:
      CheckpointError: no checkpoint, its arrays are not those of its config, or they are damaged.
    """
    config = load_model_config(folder)
    abstract = abstract_params(config)
    together = ocp.options.MultiprocessingOptions()
    if shardings is None:
        shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), abstract)
        me = jax.process_index()
        together = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"
        )
    path = (folder / "params").absolute()
    with _reading(folder), ocp.StandardCheckpointer(multiprocessing_options=together) as checkpointer:
        if damaged := damaged_chunks(path):
            named = ", ".join(damaged[:5])
            raise CheckpointError(
                f"{folder}: params/ is damaged (lost or cut short: {named}); copy or convert the model again"
            )
        stored = checkpointer.metadata(path).item_metadata.tree
        _require_same_shapes(folder, abstract, stored)
        targets = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=sharding),
            stored,
            shardings,
        )
        return checkpointer.restore(path, targets)


def load_model_config(folder: Path) -> ModelConfig:
    """Returns the model config of a checkpoint; raises CheckpointError if there is none."""
    return read_header(folder).config


def provenance(folder: Path) -> dict[str, Any]:
    """Returns where a checkpoint's weights came from; raises CheckpointError if there is no checkpoint."""
    return read_header(folder).provenance


def template(folder: Path) -> str | None:
    """Returns the name of the template that a checkpoint was trained with, None where that is not known."""
    return read_header(folder).template


def tokenizer_folder(folder: Path) -> Path:
    """Returns the folder of a checkpoint's tokenizer files; raises CheckpointError if there is no checkpoint."""
    read_header(folder)
    return folder / "tokenizer"


def params_folder(folder: Path) -> Path:
    """Returns the folder of a checkpoint's arrays; raises CheckpointError if there is no checkpoint."""
    read_header(folder)
    return folder / "params"


def write_header(folder: Path, header: Header) -> None:
    """Writes a checkpoint's model.json; the last file to be written."""
    fields = {field.name: getattr(header, field.name) for field in dataclasses.fields(header)}
    data = {"format": FORMAT, "jaxwiz": __version__, **fields, "config": dump_config(header.config)}
    write_text(folder / "model.json", json.dumps(data, indent=1) + "\n")


def read_header(folder: Path) -> Header:
    """Returns what a checkpoint's model.json says; raises CheckpointError if there is no checkpoint."""
    path = folder / "model.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"{folder}: no checkpoint here (no model.json); `jaxwiz convert` makes one from a Hugging Face folder"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); convert or copy the model again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT!r}; convert the model again")
    missing = [field.name for field in dataclasses.fields(Header) if field.name not in data]
    if missing:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; convert or copy the model again")
    fields = {field.name: data[field.name] for field in dataclasses.fields(Header)}
    return Header(**{**fields, "config": parse_model_config(data["config"], str(path))})


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turns what Orbax raises for lost or damaged files into a CheckpointError."""
    try:
        yield
    except (UserError, RuntimeError):  # RuntimeError: JAX's own, such as a device without enough memory
        raise
    except Exception as error:  # Orbax raises no narrower type
        raise CheckpointError(
            f"{folder}: params/ is damaged ({str(error).splitlines()[0][:300]}); copy or convert the model again"
        ) from None


def _without_dtype(hf_config: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns a config.json for weights that training left in another dtype than the one it names."""
    if hf_config is None:
        return None
    return {key: value for key, value in hf_config.items() if key not in ("dtype", "torch_dtype")}


def _chunking(params: Params) -> Params:
    """Returns how Orbax shall cut each leaf: stacked ones along layers, and none into large chunks."""
    return {
        part: jax.tree.map(
            lambda _, axes=(0,) if part == "layers" else (): ocp.SaveArgs(
                chunk_byte_size=_CHUNK_BYTES, shard_axes=axes
            ),
            subtree,
        )
        for part, subtree in params.items()
    }


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
