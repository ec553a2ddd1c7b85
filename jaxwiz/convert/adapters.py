"""A base model with adapters added to its kernels: W + scale * B A, in float32, a block of rows at a time."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz.checkpoint.adapter import MODULES, WEIGHTS_FILE, StoredAdapter, load_adapter
from jaxwiz.convert.names import ConversionError
from jaxwiz.convert.tensors import ModelFiles, TensorReader
from jaxwiz.files import sha256_of_bytes, sha256_of_file
from jaxwiz.model.config import ModelConfig


class MergedReader:
    """The tensors of a base with adapters merged in; see `TensorReader`. Merged ones are float32, all others as is."""

    def __init__(self, base: TensorReader, adapter: StoredAdapter) -> None:
        self.where = base.where
        self.shapes = base.shapes
        self.faults = base.faults
        self._base = base
        self._scale = np.float32(adapter.config.scale)
        self._factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for target, factors in adapter.params.items():
            for layer, (a, b) in enumerate(zip(factors["a"], factors["b"], strict=True)):
                name = f"model.layers.{layer}.{MODULES[target]}.weight"
                a, b = a.astype(np.float32), b.astype(np.float32)
                self._factors[name] = (a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1))
        wide = np.dtype(np.float32)
        self.dtypes = {name: wide if name in self._factors else dtype for name, dtype in base.dtypes.items()}

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        rows = self._base.read_rows(name, start, stop)
        if name not in self._factors:
            return rows
        a, b = self._factors[name]  # [in, R], [R, out]
        return rows.astype(np.float32) + self._scale * (a @ b[:, start:stop]).T


def merge_adapters(base: ModelFiles, folder: Path) -> ModelFiles:
    """Returns `base` with the adapters in a folder merged in; weights are read and added later, as they are asked for.

    Args:
      base: the model that the adapters were trained on.
      folder: what a training run or peft wrote.

    Raises:
      UserError: the adapters are of a kind that is not supported, or belong to another base.
    """
    adapter = load_adapter(folder, base.config)
    digest = functools.cache(base.digest)
    known, wanted = {**base.provenance, "sha256": digest()}, adapter.base.get("provenance")
    if wanted is not None and _without_name(known) != _without_name(wanted):
        raise ConversionError(
            f"source.base: is {known.get('source')} with hash {known['sha256']}, but the adapters in {folder} were "
            f"trained on {wanted.get('source')} with hash {wanted.get('sha256')}; give that base, which was at "
            f"{adapter.base.get('path')}"
        )
    weights_sha256 = sha256_of_file(folder / WEIGHTS_FILE)
    provenance = {
        "source": f"{known.get('source')}, with adapters of rank {adapter.config.rank} from {folder.name} merged in",
        "base": known,
        "adapter_sha256": weights_sha256,
    }
    return dataclasses.replace(
        base,
        tensors=MergedReader(base.tensors, adapter),
        provenance=provenance,
        digest=lambda: sha256_of_bytes(f"{digest()} {weights_sha256}".encode()),
    )


def check_adapters(folder: Path, base: ModelConfig) -> None:
    """Checks that the adapters in a folder fit a base of this shape; raises CheckpointError if they do not."""
    load_adapter(folder, base)


def _without_name(provenance: dict[str, Any]) -> dict[str, Any]:
    """Returns what tells two models apart; the same weights may be called differently."""
    return {key: value for key, value in provenance.items() if key != "source"}
