"""What can be said of a data run before it starts, from the tokenizer and the first rows of each source."""

import itertools
from pathlib import Path

from jaxwiz.config import Finding
from jaxwiz.data.config import DataConfig
from jaxwiz.data.encode import Example, encode_rows
from jaxwiz.data.hub import HubDataset, list_dataset
from jaxwiz.data.sources import Reject, Row, read_source
from jaxwiz.fanout import check_engine
from jaxwiz.files import UserError, free_bytes
from jaxwiz.text.templates import Template, load_template
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer

ROWS_CHECKED = 200  # of each source
# Disk for encoded examples and shards, as a part of the sources' size: at 3 characters a token, 4 bytes each, and as
# much again for the shards.
DISK_SHARE = 3.0
GIB = 2**30


def check_data(config: DataConfig) -> list[Finding]:
    """Returns all findings; those that need what an earlier error denies are left out."""
    findings = []
    tokenizer = template = None
    try:
        tokenizer = load_tokenizer(config.tokenizer)
    except UserError as error:
        findings.append(Finding("error", f"tokenizer = {str(config.tokenizer)!r}: {error}"))
    else:
        findings.append(Finding("ok", f"tokenizer: {tokenizer.vocab_size:,} tokens"))
        try:
            template = load_template(config.template, tokenizer)
        except UserError as error:
            findings.append(Finding("error", str(error)))
    for source in config.sources:
        if isinstance(source, HubDataset):
            findings.append(_check_hub(source))
        else:
            findings += _check_source(config, source, tokenizer, template)
    findings.append(_check_disk(config))
    if config.clean is not None:
        from jaxwiz.clean.run import check_clean

        findings += check_clean(config.clean)
    return findings + check_engine(config.engine)


def _check_hub(source: HubDataset) -> Finding:
    try:
        commit, names = list_dataset(source)
    except UserError as error:
        return Finding("error", str(error))
    return Finding("ok", f"{source.repo_id} at {commit[:12]}: {len(names)} file(s), from {names[0]}; not fetched yet")


def _check_disk(config: DataConfig) -> Finding:
    need = int(DISK_SHARE * sum(path.stat().st_size for path in config.sources if isinstance(path, Path)))
    free = free_bytes(config.out)
    found = f"disk: about {need / GIB:.1f} GiB needed for the run, {free / GIB:.1f} GiB free at {config.out}"
    return Finding("ok" if need < free else "error", found if need < free else f"{found}; choose another folder as out")


def _check_source(
    config: DataConfig, path: Path, tokenizer: Tokenizer | None, template: Template | None
) -> list[Finding]:
    try:
        first = list(itertools.islice(read_source(path), ROWS_CHECKED))
    except UserError as error:
        return [Finding("error", str(error))]
    if not first:
        return [Finding("error", f"{path}: holds no rows; give a file of instructions with answers")]
    bad = [item for item in first if isinstance(item, Reject)]
    rows = [item for item in first if isinstance(item, Row)]
    findings = []
    if bad:
        message = f"{path}:{bad[0].number}: {bad[0].reason}: {bad[0].detail}"
        if not rows:
            return [
                Finding("error", f"{message}; none of the first {len(first)} rows is usable; is this the right file?")
            ]
        findings.append(Finding("warning", f"{message}; {len(bad)} of the first {len(first)} rows are unusable"))
    else:
        findings.append(Finding("ok", f"{path}: the first {len(first)} rows are usable"))
    if tokenizer is not None and template is not None:
        findings.append(_check_lengths(config, path, rows, tokenizer, template))
    return findings


def _check_lengths(
    config: DataConfig, path: Path, rows: list[Row], tokenizer: Tokenizer, template: Template
) -> Finding:
    """Encodes rows, and says how long they are and how many of them are too long."""
    try:
        items = list(encode_rows(rows, tokenizer, template, config.sequence_length, config.over_long))
    except UserError as error:
        return Finding("error", str(error))
    examples = [item for item in items if isinstance(item, Example)]
    dropped = sum(isinstance(item, Reject) and not item.kept for item in items)
    if not examples:
        return Finding(
            "error",
            f"sequence_length = {config.sequence_length}: none of the first {len(rows)} rows of {path} fits; raise it",
        )
    mean = sum(len(example.tokens) for example in examples) / len(examples)
    found = f"{path}: {mean:.0f} tokens a row of text, {config.sequence_length} a packed row; {dropped} are too long"
    return Finding("warning" if dropped > 0.1 * len(rows) else "ok", found)
