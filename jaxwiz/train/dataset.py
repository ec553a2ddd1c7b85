"""The datasets of a run: their manifests, held against the files, each other and the checkpoint, and their feeds.

A model that is fed another tokenizer's ids trains without an error and learns nonsense, so the digests must be equal.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from jaxwiz.checkpoint.weights import load_model_config, tokenizer_folder
from jaxwiz.data.feed import DatasetShape, Feed, read_shape
from jaxwiz.files import UserError
from jaxwiz.text.templates import TEMPLATES
from jaxwiz.text.tokenizer import load_tokenizer
from jaxwiz.train.config import TrainConfig

_SCHEMA = "jaxwiz.data_manifest.v1"

OnCorrupt = Callable[[Path, int, str], None]


class ManifestError(UserError):
    """A manifest that is missing, or that contradicts its dataset or the checkpoint; names both and the remedy."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What training needs to know of a dataset.

    Attributes:
      sequence_length: T, tokens in a packed row.
      rows: packed rows of each split.
      template: name of the instruction template that its examples were put into.
      template_digest: SHA-256 of what that template does.
      vocab_size: of the tokenizer that encoded it; ids are below it.
      tokenizer_digest: SHA-256 over that tokenizer's files.
    """

    sequence_length: int
    rows: dict[str, int]
    template: str
    template_digest: str
    vocab_size: int
    tokenizer_digest: str


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest in a data stage's folder.

    Raises:
      ManifestError: there is none, it is damaged, or the dataset beside it is not the one that it describes.
      UserError: the dataset itself cannot be read.
    """
    path = folder / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != _SCHEMA:
            raise ManifestError(f"{path}: schema {data['schema']!r}, expected {_SCHEMA!r}; run the data stage again")
        manifest = Manifest(
            sequence_length=data["sequence_length"],
            rows={name: split["rows"] for name, split in data["splits"].items()},
            template=data["template"]["name"],
            template_digest=data["template"]["sha256"],
            vocab_size=data["tokenizer"]["vocab_size"],
            tokenizer_digest=data["tokenizer"]["sha256"],
        )
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}); `dataset` must be the folder that `jaxwiz data` wrote"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"{path}: damaged ({error!r}); run the data stage again") from None
    _require_described(path, manifest, read_shape(folder / "dataset"))
    return manifest


def read_manifests(config: TrainConfig) -> Manifest:
    """Returns what all datasets of a run have in common, with the rows of each split added up.

    Raises:
      ManifestError: see `read_manifest`; or they differ in tokenizer, template or length of rows.
      UserError: a dataset itself cannot be read.
    """
    manifest = read_manifest(config.dataset)
    for share in config.mix:
        other = read_manifest(share.path)
        for name in ("tokenizer_digest", "template", "template_digest", "sequence_length"):
            here, there = getattr(manifest, name), getattr(other, name)
            if here != there:
                raise ManifestError(
                    f"{share.path / 'manifest.json'}: {name} {there!r}, but {config.dataset} has {here!r}; "
                    "run the data stage with the same settings for all datasets of a mix"
                )
        splits = sorted(manifest.rows.keys() | other.rows.keys())
        rows = {split: manifest.rows.get(split, 0) + other.rows.get(split, 0) for split in splits}
        manifest = dataclasses.replace(manifest, rows=rows)
    return manifest


def open_train_feed(config: TrainConfig, on_corrupt: OnCorrupt | None = None) -> Feed:
    """Returns the feed of all steps, the datasets mixed by weight where there are several.

    Args:
      config: of the run.
      on_corrupt: see `Feed`.

    Raises:
      UserError: a dataset has no such split, or weights cannot be kept to.
    """
    folders = [config.dataset, *(share.path for share in config.mix)]
    weights = [1.0, *(share.weight for share in config.mix)] if config.mix else None
    datasets = [folder / "dataset" for folder in folders]
    return Feed(datasets, "train", config.batch.rows, config.seed, weights=weights, on_corrupt=on_corrupt)


def open_heldout_feed(config: TrainConfig, batch_size: int, on_corrupt: OnCorrupt | None = None) -> Feed | None:
    """Returns all held-out rows in stored order, one dataset after another; None if no dataset holds any out."""
    folders = [config.dataset / "dataset", *(share.path / "dataset" for share in config.mix)]
    folders = [folder for folder in folders if read_shape(folder).rows("heldout")]
    if not folders:
        return None
    return Feed(folders, "heldout", batch_size, config.seed, shuffle=False, on_corrupt=on_corrupt)


def require_matching_checkpoint(folder: Path, manifest: Manifest, checkpoint: Path) -> None:
    """Checks that a checkpoint can be trained on a dataset, and that its template means today what it meant then.

    Args:
      folder: the data stage's folder, for messages.
      manifest: its manifest.
      checkpoint: weights and tokenizer.

    Raises:
      ManifestError: other tokenizer, rows longer than the model's positions, ids beyond its vocabulary, or a built-in
        template that has changed since.
    """
    model = load_model_config(checkpoint)
    digest = load_tokenizer(tokenizer_folder(checkpoint)).digest
    if digest != manifest.tokenizer_digest:
        raise ManifestError(
            f"{folder / 'manifest.json'}: tokenizer {manifest.tokenizer_digest[:12]}, but {checkpoint} has tokenizer "
            f"{digest[:12]}; run the data stage with tokenizer = {str(checkpoint / 'tokenizer')!r}"
        )
    if manifest.vocab_size > model.vocab_size:
        raise ManifestError(
            f"{folder / 'manifest.json'}: ids up to {manifest.vocab_size - 1}, but the model of {checkpoint} has "
            f"{model.vocab_size} tokens; convert the model again so that its embedding covers its tokenizer"
        )
    if manifest.sequence_length > model.context_length:
        raise ManifestError(
            f"{folder / 'manifest.json'}: sequence_length = {manifest.sequence_length}, but the model of {checkpoint} "
            f"was made for at most {model.context_length} positions; lower sequence_length in the data stage"
        )
    built_in = TEMPLATES.get(manifest.template)
    if built_in is not None and built_in.digest != manifest.template_digest:
        raise ManifestError(
            f"{folder / 'manifest.json'}: template {manifest.template!r} was {manifest.template_digest[:12]}, but is "
            f"{built_in.digest[:12]} in this jaxwiz, so the model would be asked in another form than it was trained "
            "in; run the data stage again"
        )


def _require_described(path: Path, manifest: Manifest, shape: DatasetShape) -> None:
    found = {split: shape.rows(split) for split in shape.shards}
    if (manifest.sequence_length, manifest.rows) != (shape.sequence_length, found):
        raise ManifestError(
            f"{path}: describes rows of {manifest.sequence_length} tokens, {manifest.rows}, but dataset/ holds rows of "
            f"{shape.sequence_length}, {found}; they are from different runs, copy the folder again"
        )
