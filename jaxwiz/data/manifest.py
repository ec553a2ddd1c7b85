"""What a dataset is made of and how full it is: manifest.json for programs, summary.txt for people.

Neither holds a path or a time, so the same inputs give the same files on any machine.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxwiz import __version__
from jaxwiz.data.config import DataConfig
from jaxwiz.data.rows import DatasetError
from jaxwiz.data.shards import Shard
from jaxwiz.text.templates import Template
from jaxwiz.text.tokenizer import Tokenizer

MANIFEST_SCHEMA = "jaxwiz.data_manifest.v1"


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """How many source rows are not in the data as they were, by reason.

    Attributes:
      left_out: gave no example: unusable, too long, or excluded by cleaning.
      cut: are there in a shortened form.
      cleaning: those that cleaning excluded, by reason and test; empty if none was configured.
    """

    left_out: dict[str, int]
    cut: dict[str, int]
    cleaning: dict[str, dict[str, int]]


def split_facts(shards: Sequence[Shard], sequence_length: int) -> dict[str, Any]:
    """Returns the counts of a split and what is in its files; `sequence_length` is T."""
    total = {name: sum(getattr(shard, name) for shard in shards) for name in ("rows", "examples", "tokens")}
    loss_tokens = sum(shard.loss_tokens for shard in shards)
    return {
        **total,
        "loss_tokens": loss_tokens,
        "fill": round(total["tokens"] / (total["rows"] * sequence_length), 6),
        "loss_share": round(loss_tokens / total["tokens"], 6),
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }


def make_manifest(
    config: DataConfig,
    tokenizer: Tokenizer,
    template: Template,
    sources: Sequence[dict[str, Any]],
    left_out: LeftOut,
    splits: Mapping[str, Sequence[Shard]],
) -> dict[str, Any]:
    """Returns the manifest as a plain mapping.

    Args:
      config: of the run.
      tokenizer: that encoded the examples.
      template: that laid them out.
      sources: name, SHA-256 and rows, usable or not, of each.
      left_out: counts of rows that are not in the data as they were.
      splits: the shards of each split, in order.
    """
    return {
        "schema": MANIFEST_SCHEMA,
        "jaxwiz": __version__,
        "sequence_length": config.sequence_length,
        "template": {"name": template.name, "sha256": template.digest},
        "tokenizer": {
            "sha256": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id if tokenizer.adds_bos else None,
            "eos_id": tokenizer.eos_id,
            "pad_id": tokenizer.pad_id,
        },
        "sources": sources,
        "source_rows": sum(source["rows"] for source in sources),
        **dataclasses.asdict(left_out),
        "over_long": config.over_long,
        "pack_window": config.pack_window,
        "heldout_share": config.heldout_share,
        "seed": config.seed,
        "splits": {name: split_facts(shards, config.sequence_length) for name, shards in splits.items()},
    }


def read_manifest(path: Path) -> tuple[Path, dict[str, Any]]:
    """Returns a data stage's folder and the manifest in it.

    Args:
      path: that folder, or `dataset` below it.

    Raises:
      DatasetError: there is no manifest, or one of something else.
    """
    out = path.absolute().parent if (path / "features.json").is_file() else path
    file = out / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if manifest["schema"] != MANIFEST_SCHEMA:
            raise ValueError(f"schema {manifest['schema']!r} instead of {MANIFEST_SCHEMA!r}")
        summarize(manifest)  # fails where something is missing
    except KeyError as error:
        raise DatasetError(
            f"{file}: lacks {error}, which this version of jaxwiz writes; give the folder that `jaxwiz data` wrote, or "
            "run the data stage again"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{file}: {error}; give the folder that `jaxwiz data` wrote") from None
    return out, manifest


def summarize(manifest: dict[str, Any]) -> str:
    """Returns a manifest as a few lines of text."""
    lines = []
    for name, facts in manifest["splits"].items():
        lines.append(
            f"{name}: {facts['examples']:,} examples in {facts['rows']:,} rows of {manifest['sequence_length']:,}, "
            f"{100 * facts['fill']:.1f}% full, {facts['tokens']:,} tokens, "
            f"{100 * facts['loss_share']:.1f}% of them bear loss, {len(facts['shards'])} shard(s)"
        )
    for title in ("left_out", "cut"):
        found = ", ".join(f"{count:,} {reason}" for reason, count in manifest[title].items()) or "none"
        lines.append(f"{title.replace('_', ' ')}: {found}, of {manifest['source_rows']:,} source rows")
    tokenizer = manifest["tokenizer"]
    lines.append(
        f"template {manifest['template']['name']}, tokenizer {tokenizer['sha256'][:12]} "
        f"({tokenizer['vocab_size']:,} tokens), EOS {tokenizer['eos_id']}, "
        f"BOS {'none' if tokenizer['bos_id'] is None else tokenizer['bos_id']}"
    )
    return "\n".join(lines) + "\n"
