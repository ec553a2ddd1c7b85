"""The data stage: instructions with answers in, packed and masked rows of tokens out.

    jaxwiz data configs/data/wizardcoder.yaml

Reads every source, encodes with the template, splits off held-out lineages, packs, and writes a TFDS dataset with a
manifest. Everything is a function of the config and the inputs, and the dataset appears whole or not at all, so a
killed run simply starts again. All examples of a run are in memory at once.
"""

import hashlib
import itertools
import json
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import progress, say, warn
from jaxwiz.data.config import DataConfig
from jaxwiz.data.encode import Example, encode_rows
from jaxwiz.data.manifest import make_manifest, split_facts, summarize
from jaxwiz.data.pack import PackedRows
from jaxwiz.data.shards import write_dataset
from jaxwiz.data.sources import Reject, Row, lineage_keys, read_source
from jaxwiz.files import UserError
from jaxwiz.text.templates import encode_example, get_template
from jaxwiz.text.tokenizer import load_tokenizer

ROWS_CHECKED = 20  # of each source, by `jaxwiz check`


class DataError(UserError):
    """Sources that make no dataset; the message says why and what to change."""


def run(config: DataConfig) -> Path:
    """Returns `config.out` after writing `dataset/`, `manifest.json`, `summary.txt` and, if any, `rejects.jsonl` there.

    Raises:
      UserError: a source or the tokenizer cannot be used, too many rows are bad, or nothing is left to train on.
    """
    tokenizer = load_tokenizer(config.tokenizer)
    rows, rejects = _read(config)
    source_rows = len(rows) + len(rejects)
    _write_rejects(config.out, rejects)
    _stop_if_too_many(config, rejects, source_rows)
    examples: list[Example] = []
    with progress("encode", len(rows), "rows") as advance:
        for item in encode_rows(
            rows, tokenizer, get_template(config.template), config.sequence_length, config.over_long
        ):
            if isinstance(item, Example):
                examples.append(item)
            else:
                rejects.append(item)
            # A cut row gives two items, its reject and then its example.
            if isinstance(item, Example) or not item.kept:
                advance()
    _write_rejects(config.out, rejects)
    if not examples:
        raise DataError(f"none of {source_rows} source rows makes an example; see {config.out / 'rejects.jsonl'}")
    splits = _split(config, rows, examples)
    say(f"pack and write {len(examples):,} examples")
    packed = {name: PackedRows(members, config.sequence_length, tokenizer.pad_id) for name, members in splits.items()}
    shards = write_dataset(config.out / "dataset", packed, config.sequence_length, config.rows_per_shard)
    facts = {name: split_facts(splits[name], shards[name], config.sequence_length) for name in splits}
    manifest = make_manifest(config, tokenizer, facts, source_rows, rejects)
    files.write_text(config.out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    files.write_text(config.out / "summary.txt", summarize(manifest))
    return config.out


def check(config: DataConfig) -> list[Finding]:
    """Returns what a run would meet: the tokenizer opens and has the template's tokens, the first rows are usable."""
    findings = []
    try:
        tokenizer = load_tokenizer(config.tokenizer)
        tokens, _ = encode_example(tokenizer, get_template(config.template), "", "", "")
        message = (
            f"tokenizer: {tokenizer.vocab_size:,} tokens, template {config.template!r} takes {len(tokens)} of them"
        )
        if len(tokens) >= config.sequence_length:
            findings.append(
                Finding("error", f"sequence_length = {config.sequence_length}: {message}; raise sequence_length")
            )
        else:
            findings.append(Finding("ok", message))
    except UserError as error:
        findings.append(Finding("error", f"tokenizer = {str(config.tokenizer)!r}: {error}"))
    for path in config.sources:
        findings.append(_check_source(path))
    return findings


def _check_source(path: Path) -> Finding:
    try:
        first = list(itertools.islice(read_source(path), ROWS_CHECKED))
    except UserError as error:
        return Finding("error", str(error))
    if not first:
        return Finding("error", f"{path}: holds no rows; give a file of instructions with answers")
    bad = [item for item in first if isinstance(item, Reject)]
    if not bad:
        return Finding("ok", f"{path}: the first {len(first)} rows are usable")
    message = f"{path}:{bad[0].number}: {bad[0].reason}: {bad[0].detail}"
    if len(bad) == len(first):
        return Finding("error", f"{message}; none of the first {len(first)} rows is usable; is this the right file?")
    return Finding("warning", f"{message}; {len(bad)} of the first {len(first)} rows are unusable")


def _read(config: DataConfig) -> tuple[list[Row], list[Reject]]:
    rows: list[Row] = []
    rejects: list[Reject] = []
    for path in config.sources:
        items = list(read_source(path))
        if not items:
            raise DataError(f"{path}: holds no rows; give a file of instructions with answers, or leave it out")
        rows += [item for item in items if isinstance(item, Row)]
        rejects += [item for item in items if isinstance(item, Reject)]
    return rows, rejects


def _write_rejects(out: Path, rejects: list[Reject]) -> None:
    path = out / "rejects.jsonl"
    if rejects:
        files.write_text(path, "".join(reject.to_json() + "\n" for reject in rejects))
    else:
        path.unlink(missing_ok=True)


def _stop_if_too_many(config: DataConfig, rejects: list[Reject], source_rows: int) -> None:
    share = len(rejects) / source_rows
    if share <= config.max_rejected_share:
        return
    first = rejects[0]
    raise DataError(
        f"{len(rejects)} of {source_rows} source rows ({100 * share:.1f}%) cannot be used, more than "
        f"max_rejected_share = {config.max_rejected_share}; the first: {first.file}:{first.number}: {first.reason}: "
        f"{first.detail}; all are in {config.out / 'rejects.jsonl'}; correct them or raise max_rejected_share"
    )


def _split(config: DataConfig, rows: list[Row], examples: list[Example]) -> dict[str, list[Example]]:
    keys = {(row.file, row.number): key for row, key in zip(rows, lineage_keys(rows), strict=True)}
    example_keys = [keys[example.row.file, example.row.number] for example in examples]
    heldout = heldout_lineages(set(example_keys), config.heldout_share, config.seed)
    splits: dict[str, list[Example]] = {"train": [], "heldout": []}
    for example, key in zip(examples, example_keys, strict=True):
        splits["heldout" if key in heldout else "train"].append(example)
    if config.heldout_share > 0 and not splits["heldout"]:
        warn("all examples are of one lineage, so there is no held-out split")
    return {name: members for name, members in splits.items() if members}


def heldout_lineages(keys: set[str], share: float, seed: int) -> set[str]:
    """Returns the lineages to hold out: those whose hash lies below `share`.

    A lineage's side depends on its key and the seed alone, so it keeps its side when the data grows. A small set may
    have none below or none above: then the lineage with the least (or greatest) hash makes up for it, given two.
    """

    def position(key: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8], "big") / 2**64

    if share == 0 or len(keys) < 2:
        return set()
    ordered = sorted(keys, key=lambda key: (position(key), key))
    count = sum(position(key) < share for key in ordered)
    return set(ordered[: min(max(count, 1), len(ordered) - 1)])
