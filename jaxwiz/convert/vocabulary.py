"""Another number of tokens: control tokens are added, rows that fill the vocabulary to a multiple come and go.

Added and padding rows start as the mean of the embedding's trained rows, input and output alike. With the mean as its
output row, a new token's logit is the mean of all logits, so by Jensen's inequality it takes at most 1/V of the
probability: P padding rows change a distribution by at most P/V, whereas rows of zeros would have no such bound.
Padding is not masked: it takes part in the softmax with that share, in training, too, where its logits are pushed
down. An export leaves the padding out.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxwiz.convert.config import VocabularyConfig
from jaxwiz.convert.flow import rows_per_block
from jaxwiz.convert.names import ConversionError, Rule, rules_for, tensor_names
from jaxwiz.convert.tensors import ModelFiles, TensorReader
from jaxwiz.files import copy_files
from jaxwiz.model.config import ModelConfig
from jaxwiz.text.tokenizer import load_tokenizer

_CONTROL_PIECE = 3  # SentencePiece's ModelProto.SentencePiece.Type.CONTROL


class ResizedReader:
    """A model's tensors with another number of vocabulary rows; see `TensorReader`."""

    def __init__(self, reader: TensorReader, config: ModelConfig, rows: int, trained: int, added: int) -> None:
        """Wraps a reader.

        Args:
          reader: the tensors as they are.
          config: their model's shape.
          rows: V of the result.
          trained: rows that are tokens of the tokenizer: the mean is taken over them.
          added: rows after those that are set to the mean, whether they existed or not.
        """
        self.where = reader.where
        self.faults = reader.faults
        self.dtypes = reader.dtypes
        self._reader = reader
        self._config = config
        self._trained = trained
        self._added = added
        rules = {tensor_names(rule, config)[0]: rule for rule in rules_for(config) if _is_vocabulary(rule)}
        self._kept = {name: min(rows, reader.shapes[name][0]) for name in rules}
        self.shapes = {name: (rows, *shape[1:]) if name in rules else shape for name, shape in reader.shapes.items()}
        grows = {name: rule for name, rule in rules.items() if added or rows > self._kept[name]}
        self._means = {name: self._mean(name, rule) for name, rule in grows.items()}

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Returns a part of one tensor; see `TensorReader.read_rows`."""
        if name not in self._kept:
            return self._reader.read_rows(name, start, stop)
        if name not in self._means:
            return self._reader.read_rows(name, start, stop)
        values = np.empty((stop - start, *self.shapes[name][1:]), self.dtypes[name])
        end = min(stop, self._kept[name])
        if start < end:
            values[: end - start] = self._reader.read_rows(name, start, end)
        numbers = np.arange(start, stop)
        new = (numbers >= self._kept[name]) | ((numbers >= self._trained) & (numbers < self._trained + self._added))
        values[new] = self._means[name]
        return values

    def _mean(self, name: str, rule: Rule) -> np.ndarray:
        total = np.zeros(self.shapes[name][1:], np.float64)
        step = rows_per_block(rule, self._config)
        for start in range(0, self._trained, step):
            block = self._reader.read_rows(name, start, min(start + step, self._trained))
            total += block.astype(np.float32).sum(axis=0, dtype=np.float64)
        return (total / self._trained).astype(self.dtypes[name])


def resize_vocabulary(model: ModelFiles, vocabulary: VocabularyConfig, scratch: Path) -> ModelFiles:
    """Returns the model with the tokens and the padding that `vocabulary` asks for.

    New tokens take the ids after the tokenizer's last one, where a model may already have spare rows.

    Args:
      model: the model as it is.
      vocabulary: what to add.
      scratch: a folder to be created for the tokenizer's files; it must outlive the result.

    Raises:
      ConversionError: a token exists already, or the tokenizer's files are of a kind that cannot take one.
    """
    trained = load_tokenizer(model.tokenizer).vocab_size
    added = len(vocabulary.add_tokens)
    copy_files(model.tokenizer, scratch)
    if added:
        _add_to_tokenizer(scratch, vocabulary, trained)
    true_size = max(unpadded(model).config.vocab_size, trained + added)
    multiple = vocabulary.pad_to_multiple or 1
    rows = -(-true_size // multiple) * multiple
    tensors = ResizedReader(model.tensors, model.config, rows, trained, added)
    return dataclasses.replace(
        model,
        tensors=tensors,
        tokenizer=scratch,
        config=dataclasses.replace(model.config, vocab_size=rows),
        unpadded_vocab_size=true_size if rows > true_size else None,
        hf_config=_with_pad_id(model, vocabulary, trained),
    )


def unpadded(model: ModelFiles) -> ModelFiles:
    """Returns the model without the rows that only pad its vocabulary."""
    rows = model.unpadded_vocab_size
    if rows is None:
        return model
    return dataclasses.replace(
        model,
        tensors=ResizedReader(model.tensors, model.config, rows, rows, 0),
        config=dataclasses.replace(model.config, vocab_size=rows),
        unpadded_vocab_size=None,
    )


def _is_vocabulary(rule: Rule) -> bool:
    return rule.layout.startswith("V")


def _with_pad_id(model: ModelFiles, vocabulary: VocabularyConfig, first_id: int) -> dict[str, Any] | None:
    if model.hf_config is None or vocabulary.pad_token is None:
        return model.hf_config
    return model.hf_config | {"pad_token_id": first_id + vocabulary.add_tokens.index(vocabulary.pad_token)}


def _add_to_tokenizer(folder: Path, vocabulary: VocabularyConfig, first_id: int) -> None:
    """Adds control tokens to every file that lists tokens, and names the padding token where one is asked for."""
    new_ids = {token: first_id + index for index, token in enumerate(vocabulary.add_tokens)}
    if (folder / "tokenizer.json").is_file():
        _edit_json(folder / "tokenizer.json", lambda spec: _add_to_tokenizer_json(spec, new_ids, folder))
    if (folder / "tokenizer.model").is_file():
        _add_pieces(folder / "tokenizer.model", new_ids)
    _update_json(folder / "added_tokens.json", new_ids)

    def edit_settings(settings: dict[str, Any]) -> None:
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] |= {str(index): _entry(token) for token, index in new_ids.items()}
        if vocabulary.pad_token is not None:
            settings["pad_token"] = vocabulary.pad_token

    settings_file = folder / "tokenizer_config.json"
    if not settings_file.is_file():
        settings_file.write_text("{}", encoding="utf-8")
    _edit_json(settings_file, edit_settings)
    if vocabulary.pad_token is not None:
        _update_json(folder / "special_tokens_map.json", {"pad_token": vocabulary.pad_token})
        _update_json(folder / "generation_config.json", {"pad_token_id": new_ids[vocabulary.pad_token]})


def _entry(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": token, **flags, "special": True}


def _add_to_tokenizer_json(spec: dict[str, Any], new_ids: dict[str, int], folder: Path) -> None:
    vocabulary = spec.get("model", {}).get("vocab", {})
    pieces = vocabulary if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
    known = {token["content"] for token in spec["added_tokens"]} | set(pieces)
    _require_new(known, new_ids, folder / "tokenizer.json")
    spec["added_tokens"] += [{"id": index, **_entry(token)} for token, index in new_ids.items()]


def _add_pieces(path: Path, new_ids: dict[str, int]) -> None:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())  # type: ignore[attr-defined]
    _require_new({piece.piece for piece in proto.pieces}, new_ids, path)
    if min(new_ids.values()) != len(proto.pieces):
        raise ConversionError(
            f"{path}: has {len(proto.pieces)} pieces, but tokenizer.json beside it {min(new_ids.values())} tokens; "
            "remove tokenizer.model, or take tokens out of tokenizer.json, so that both count alike"
        )
    for token in new_ids:
        proto.pieces.add(piece=token, score=0.0, type=_CONTROL_PIECE)
    path.write_bytes(proto.SerializeToString())


def _require_new(known: set[str], new_ids: dict[str, int], path: Path) -> None:
    repeated = sorted(known & new_ids.keys())
    if repeated:
        raise ConversionError(
            f"vocabulary.add_tokens: {', '.join(map(repr, repeated))} is in {path.name} already; remove it there"
        )


def _update_json(path: Path, values: dict[str, Any]) -> None:
    if path.is_file():
        _edit_json(path, lambda data: data.update(values))


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
