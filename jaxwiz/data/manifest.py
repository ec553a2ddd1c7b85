"""What a dataset is made of and how full it is: manifest.json for programs, summary.txt for people.

Neither holds a path or a time, so the same inputs give the same files on any machine.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jaxwiz import __version__
from jaxwiz.data.config import DataConfig
from jaxwiz.data.encode import Example
from jaxwiz.data.shards import Shard
from jaxwiz.data.sources import Reject
from jaxwiz.files import sha256_of_bytes, sha256_of_file
from jaxwiz.text.templates import get_template
from jaxwiz.text.tokenizer import Tokenizer

MANIFEST_SCHEMA = "jaxwiz.data_manifest.v1"


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """Counts of one split.

    Attributes:
      rows: packed rows.
      examples: instructions with answers in them.
      tokens: all but padding.
      loss_tokens: those that bear loss.
      fill: tokens as a part of all places in the rows.
      shards: its files.
    """

    rows: int
    examples: int
    tokens: int
    loss_tokens: int
    fill: float
    shards: list[Shard]


def split_facts(examples: Sequence[Example], shards: list[Shard], sequence_length: int) -> SplitFacts:
    """Returns the counts of a split from the examples that were packed and the shards that were written."""
    rows = sum(shard.rows for shard in shards)
    tokens = sum(len(example.tokens) for example in examples)
    return SplitFacts(
        rows=rows,
        examples=len(examples),
        tokens=tokens,
        loss_tokens=sum(int(example.trained.sum()) for example in examples),
        fill=round(tokens / (rows * sequence_length), 6),
        shards=shards,
    )


def make_manifest(
    config: DataConfig,
    tokenizer: Tokenizer,
    splits: dict[str, SplitFacts],
    source_rows: int,
    rejects: Iterable[Reject],
) -> dict[str, Any]:
    """Returns the manifest as a plain mapping.

    Args:
      config: of the run.
      tokenizer: that encoded the examples.
      splits: counts of each split.
      source_rows: rows read, usable or not.
      rejects: rows that were left out or cut.
    """
    rejects = list(rejects)
    return {
        "schema": MANIFEST_SCHEMA,
        "jaxwiz": __version__,
        "sequence_length": config.sequence_length,
        "template": {"name": config.template, "sha256": _template_digest(config.template)},
        "tokenizer": {
            "sha256": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id if tokenizer.adds_bos else None,
            "eos_id": tokenizer.eos_id,
            "pad_id": tokenizer.pad_id,
        },
        "sources": [{"name": path.name, "sha256": sha256_of_file(path)} for path in config.sources],
        "source_rows": source_rows,
        "left_out": dict(sorted(Counter(reject.reason for reject in rejects if not reject.kept).items())),
        "cut": dict(sorted(Counter(reject.reason for reject in rejects if reject.kept).items())),
        "over_long": config.over_long,
        "heldout_share": config.heldout_share,
        "seed": config.seed,
        "splits": {name: dataclasses.asdict(facts) for name, facts in splits.items()},
    }


def summarize(manifest: dict[str, Any]) -> str:
    """Returns a manifest as a few lines of text."""
    lines = []
    for name, facts in manifest["splits"].items():
        share = facts["loss_tokens"] / facts["tokens"]
        lines.append(
            f"{name}: {facts['examples']:,} examples in {facts['rows']:,} rows of {manifest['sequence_length']:,}, "
            f"{100 * facts['fill']:.1f}% full, {facts['tokens']:,} tokens, {100 * share:.1f}% of them bear loss, "
            f"{len(facts['shards'])} shard(s)"
        )
    for title, counts in (("left out", manifest["left_out"]), ("cut", manifest["cut"])):
        found = ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"
        lines.append(f"{title}: {found}, of {manifest['source_rows']:,} source rows")
    tokenizer = manifest["tokenizer"]
    lines.append(
        f"template {manifest['template']['name']}, tokenizer {tokenizer['sha256'][:12]} "
        f"({tokenizer['vocab_size']:,} tokens), EOS {tokenizer['eos_id']}, "
        f"BOS {'none' if tokenizer['bos_id'] is None else tokenizer['bos_id']}"
    )
    return "\n".join(lines) + "\n"


def _template_digest(name: str) -> str:
    """Returns a hash of what a template makes of a fixed instruction, so that a changed template is seen."""
    template = get_template(name)
    pieces = [
        [dataclasses.astuple(piece) for piece in template.prompt("instruction", context) + template.target("output")]
        for context in ("", "input")
    ]
    return sha256_of_bytes(json.dumps(pieces).encode())
