"""A model from Meta's original files: params.json, consolidated.00.pth, consolidated.01.pth, ..., tokenizer.model.

The files are pickled, so they are read only where that is allowed, and as `pickled.py` does, without running anything.
Each holds one part of a model that was split for tensor parallelism: matrices whose output is split are cut by rows,
those whose input is split by columns. Queries and keys have their rotary halves interleaved, as GGUF files do.

Llama 1, Llama 2 and Code Llama. Llama 3 is refused: its params.json doesn't say by how much rope is scaled, and its
tokenizer.model is no SentencePiece model; its Hugging Face folder has both.
"""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz.convert.config import MetaSource
from jaxwiz.convert.gguf_in import split_rotary_halves
from jaxwiz.convert.hf_in import content_digest
from jaxwiz.convert.names import LLAMA_RULES, ConversionError, Rule, tensor_names
from jaxwiz.convert.pickled import read_pickled
from jaxwiz.convert.safetensors_file import DTYPES, StoredTensor, read_stored_rows
from jaxwiz.convert.tensors import ModelFiles
from jaxwiz.model.config import LlamaConfig

# Parameter -> Meta's name, and the axis along which the parts of a split model are joined; None: all parts hold it.
_NAMES: dict[str, tuple[str, int | None]] = {
    "embed.tokens": ("tok_embeddings.weight", 1),
    "layers.attn_norm.scale": ("layers.{layer}.attention_norm.weight", None),
    "layers.attn.q.kernel": ("layers.{layer}.attention.wq.weight", 0),
    "layers.attn.k.kernel": ("layers.{layer}.attention.wk.weight", 0),
    "layers.attn.v.kernel": ("layers.{layer}.attention.wv.weight", 0),
    "layers.attn.o.kernel": ("layers.{layer}.attention.wo.weight", 1),
    "layers.mlp_norm.scale": ("layers.{layer}.ffn_norm.weight", None),
    "layers.mlp.gate.kernel": ("layers.{layer}.feed_forward.w1.weight", 0),
    "layers.mlp.up.kernel": ("layers.{layer}.feed_forward.w3.weight", 0),
    "layers.mlp.down.kernel": ("layers.{layer}.feed_forward.w2.weight", 1),
    "norm.scale": ("norm.weight", None),
    "head.kernel": ("output.weight", 0),
}
_DERIVED = "rope.freqs"  # a buffer that follows from the config
_NEEDED = ("dim", "n_layers", "n_heads", "norm_eps")


class MetaReader:
    """The tensors of Meta's files by Hugging Face name; see `TensorReader`."""

    def __init__(self, source: MetaSource) -> None:
        """Opens a folder.

        Args:
          source: the folder and what its files do not say.

        Raises:
          ConversionError: pickles are not allowed, or files are missing, damaged, or of a model that is not supported.
        """
        folder = source.path
        if not source.allow_pickle:
            raise ConversionError(
                f"{folder}: Meta's *.pth are pickled, and a pickle can run any program when it is loaded; use the "
                "model's Hugging Face folder, or set source.allow_pickle: true, by which only descriptions of tensors "
                "are unpickled"
            )
        self.where = str(folder)
        self.paths = sorted(folder.glob("consolidated.*.pth"))
        if not self.paths:
            raise ConversionError(f"{folder}: no consolidated.*.pth here; Meta's folders have one or several")
        parts = [read_pickled(path) for path in self.paths]
        names = dict.fromkeys(name for part in parts for name in part if name != _DERIVED)
        faults = [
            f"{name}: not in {path.name}"
            for path, part in zip(self.paths, parts, strict=True)
            for name in names
            if name not in part
        ]
        self._stored = {name: [part[name] for part in parts if name in part] for name in names}
        faults += [
            f"{name}: is {stored[0].dtype}, weights must be F32, F16 or BF16"
            for name, stored in self._stored.items()
            if any(tensor.dtype not in DTYPES for tensor in stored)
        ]
        self.faults = tuple(sorted(faults))
        self.config = _model_config(folder / "params.json", self._stored, source.max_positions)
        self._places: dict[str, tuple[Rule, str, int | None]] = {}
        for rule in LLAMA_RULES:
            if rule.param in _NAMES:
                pattern, axis = _NAMES[rule.param]
                for layer, name in enumerate(tensor_names(rule, self.config)):
                    self._places[name] = (rule, pattern.format(layer=layer), axis)
        known = {meta_name: (name, axis) for name, (_, meta_name, axis) in self._places.items()}
        self.shapes, self.dtypes = {}, {}
        for meta_name, stored in self._stored.items():
            name, axis = known.get(meta_name, (meta_name, None))
            self.shapes[name] = _joined_shape(stored, axis)
            if stored[0].dtype in DTYPES:
                self.dtypes[name] = DTYPES[stored[0].dtype]

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        rule, meta_name, axis = self._places[name]
        stored = self._stored[meta_name]
        if axis == 1:
            return np.concatenate([read_stored_rows(part, start, stop) for part in stored], axis=1)
        if axis is None:
            return read_stored_rows(stored[0], start, stop)
        pieces, first = [], 0
        for part in stored:
            begin, end = max(start - first, 0), min(stop - first, part.shape[0])
            if begin < end:
                pieces.append(read_stored_rows(part, begin, end))
            first += part.shape[0]
        values = np.concatenate(pieces)
        return split_rotary_halves(values, self.config.head_dim) if rule.rotary else values


def open_meta_folder(source: MetaSource, scratch: Path) -> ModelFiles:
    """Returns the model of a folder as Meta distributes it; whether its tensors fit its config is not checked here.

    Args:
      source: the folder and what its files do not say.
      scratch: an empty folder that the tokenizer is copied into; it must outlive the result.

    Raises:
      ConversionError: what is missing, damaged or not supported.
    """
    reader = MetaReader(source)
    tokenizer = next((f for f in (source.path, source.path.parent) if (f / "tokenizer.model").is_file()), None)
    if tokenizer is None:
        raise ConversionError(f"{source.path}: no tokenizer.model here or in the folder above; copy it there")
    shutil.copyfile(tokenizer / "tokenizer.model", scratch / "tokenizer.model")
    digest = partial(content_digest, [source.path / "params.json", *reader.paths])
    provenance = {"source": f"{source.path.name} (Meta's files)"}
    return ModelFiles(reader, reader.config, scratch, provenance, digest)


def _joined_shape(stored: list[StoredTensor], axis: int | None) -> tuple[int, ...]:
    shape = list(stored[0].shape)
    if axis is not None and len(shape) > axis:
        shape[axis] = sum(part.shape[axis] for part in stored)
    return tuple(shape)


def _model_config(path: Path, stored: dict[str, list[StoredTensor]], max_positions: int) -> LlamaConfig:
    try:
        params: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path}: cannot be read ({error}); it belongs beside consolidated.*.pth") from None
    faults = [f"{key}: missing" for key in _NEEDED if key not in params]
    faults += [
        f"{name}: missing in *.pth"
        for name in ("output.weight", "layers.0.feed_forward.w1.weight")
        if name not in stored
    ]
    if params.get("use_scaled_rope"):
        faults.append(
            "use_scaled_rope = true: by how much is not in this file; convert the model's Hugging Face folder"
        )
    if faults:
        raise ConversionError(f"{path}: " + "; ".join(faults))
    heads = params["n_heads"]
    return LlamaConfig(
        vocab_size=_joined_shape(stored["output.weight"], 0)[0],
        hidden_size=params["dim"],
        intermediate_size=_joined_shape(stored["layers.0.feed_forward.w1.weight"], 0)[0],
        num_layers=params["n_layers"],
        num_heads=heads,
        num_kv_heads=params.get("n_kv_heads") or heads,
        head_dim=params["dim"] // heads,
        rope_theta=float(params.get("rope_theta", 10_000.0)),
        norm_epsilon=params["norm_eps"],
        max_positions=max_positions,
    )
