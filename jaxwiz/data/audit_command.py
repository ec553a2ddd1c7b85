"""`jaxwiz audit`: checks every row of a dataset, or shows one as text with all that is usually hidden.

Loss-bearing text is green, control tokens are shown by name, and a line stands between the examples of a row. The
tokenizer and the template are those of the data stage's config beside the dataset; their digests must be those of the
manifest, for another tokenizer would show other text and find faults that are none.
"""

import collections
import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from jaxwiz import files
from jaxwiz.config import parse_config, read_config_file
from jaxwiz.console import progress
from jaxwiz.data.audit import CHECKS, Finding, audit_rows, rules_of
from jaxwiz.data.audit_page import render_page
from jaxwiz.data.config import DataConfig
from jaxwiz.data.manifest import read_manifest
from jaxwiz.data.rows import DatasetError, RowReader, read_shape
from jaxwiz.text.templates import Template, load_template
from jaxwiz.text.tokenizer import Tokenizer, load_tokenizer

SHOWN_FINDINGS = 20  # of each check
ROWS_ON_PAGE = 30


@dataclasses.dataclass(frozen=True)
class Audited:
    """A dataset with what made it.

    Attributes:
      folder: the dataset's own folder.
      tokenizer: that encoded it.
      template: that laid it out.
    """

    folder: Path
    tokenizer: Tokenizer
    template: Template

    def reader(self, split: str) -> RowReader:
        """Returns the rows of a split.

        Raises:
          DatasetError: there is no such split.
        """
        shape = read_shape(self.folder)
        if not shape.rows(split):
            raise DatasetError(f"{self.folder}: has no split {split!r}, but {', '.join(shape.shards)}")
        return RowReader(shape.shards[split], shape.sequence_length)


def open_dataset(path: Path, tokenizer: Path | None = None) -> Audited:
    """Returns the dataset in a data stage's `out` folder, or in `dataset` below it.

    Args:
      path: either folder.
      tokenizer: where its tokenizer lies now; None: where the data stage found it.

    Raises:
      DatasetError: something is missing, or tokenizer and template are not those of the manifest.
    """
    out, manifest = read_manifest(path)
    made_with = {name: manifest[name]["sha256"] for name in ("tokenizer", "template")}
    template_name = manifest["template"]["name"]
    if (out / "config.yaml").is_file():
        settings = read_config_file(out / "config.yaml")
        settings.pop("stage", None)
        config = parse_config(settings, DataConfig, str(out / "config.yaml"))
        tokenizer, template_name = tokenizer or config.tokenizer, config.template
    if tokenizer is None:
        raise DatasetError(f"{out}: holds no config.yaml that names the tokenizer; give it with --tokenizer")
    found = load_tokenizer(tokenizer)
    template = load_template(template_name, found)
    for name, digest, remedy in (
        ("tokenizer", found.digest, "give the right one with --tokenizer"),
        ("template", template.digest, "run the data stage again, for the template has changed since"),
    ):
        if digest != made_with[name]:
            raise DatasetError(
                f"{out / 'manifest.json'}: {name} {made_with[name][:12]}, but it is {digest[:12]} now; {remedy}"
            )
    return Audited(out / "dataset", found, template)


def audit(path: Path, tokenizer: Path | None = None, html: Path | None = None) -> int:
    """Checks all rows of all splits, prints what was found, and returns the number of faults.

    Args:
      path: see `open_dataset`.
      tokenizer: see `open_dataset`.
      html: a page to write, with what was found and how rows look.

    Raises:
      UserError: see `open_dataset`; or a row cannot be read.
    """
    dataset = open_dataset(path, tokenizer)
    rules = rules_of(dataset.tokenizer, dataset.template)
    counts: collections.Counter[str] = collections.Counter()
    console = Console(soft_wrap=True, highlight=False)
    rows = 0
    shown: list[tuple[str, Finding]] = []
    for split in read_shape(dataset.folder).shards:
        reader = dataset.reader(split)
        rows += len(reader)
        with progress(f"audit {split}", len(reader), "rows") as advance:
            for findings in audit_rows(reader, rules):
                advance()
                for finding in findings:
                    counts[finding.check] += 1
                    if counts[finding.check] <= SHOWN_FINDINGS:
                        shown.append((split, finding))
                        console.print(Text(_line(finding)))
    for check, promise in CHECKS.items():
        found = f"{counts[check]:,} faults" if counts[check] else "ok"
        console.print(Text(f"{check:25} {found:12} {promise}"))
    console.print(Text(f"{rows:,} rows, {counts.total():,} faults"))
    if html:
        faulty = list(dict.fromkeys((split, finding.number) for split, finding in shown))
        first = [("train", number) for number in range(min(ROWS_ON_PAGE, len(dataset.reader("train"))))]
        chosen = list(dict.fromkeys([*faulty, *first]))[:ROWS_ON_PAGE]
        looks = [
            (f"{split}, row {number}", render_row(dataset.reader(split).read(number), dataset.tokenizer))
            for split, number in chosen
        ]
        files.write_text(html, render_page(str(path), rows, counts, [_line(finding) for _, finding in shown], looks))
    return counts.total()


def show_row(path: Path, number: int, split: str = "train", tokenizer: Path | None = None) -> None:
    """Prints one row of a split, counted from 0, as text; see the head of this file and `open_dataset`."""
    dataset = open_dataset(path, tokenizer)
    reader = dataset.reader(split)
    if not 0 <= number < len(reader):
        raise DatasetError(f"--row {number}: the split {split!r} has rows 0 to {len(reader) - 1}")
    shard, place = reader.locate(number)
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(f"row {number} of {split!r} ({shard.name}, row {place})", style="bold"))
    console.print(render_row(reader.read(number), dataset.tokenizer))


def render_row(row: dict[str, np.ndarray], tokenizer: Tokenizer) -> Text:
    """Returns a row as text in colour: green where it bears loss, control tokens by name, examples under headings."""
    controls = {control.id: control.text for control in tokenizer.controls}
    text = Text()
    segments = row["segment_ids"]
    for segment in np.unique(segments[segments > 0]).tolist():
        places = np.flatnonzero(segments == segment)
        begin, end = int(places[0]), int(places[-1]) + 1
        trained = int(row["loss_mask"][begin:end].sum())
        heading = f"── example {segment}, tokens {begin} to {end - 1}, {trained} with loss ──"
        text.append(f"{heading}\n", style="cyan")
        for ids, loss in _runs(row["tokens"][begin:end].tolist(), row["loss_mask"][begin:end].tolist(), controls):
            shown = controls.get(ids[0]) or tokenizer.decode(ids, continues=True)
            style = "bold magenta" if ids[0] in controls else "green" if loss else ""
            text.append(shown, style=f"{style} underline".strip() if ids[0] in controls and loss else style)
        text.append("\n")
    text.append(f"── padding: {int((segments == 0).sum())} tokens ──", style="cyan")
    return text


def _runs(ids: list[int], loss: list[bool], controls: dict[int, str]) -> list[tuple[list[int], bool]]:
    """Returns the ids in runs of equal loss, each control token alone, so that text is decoded whole."""
    runs: list[tuple[list[int], bool]] = []
    for token, bears_loss in zip(ids, loss, strict=True):
        joins = bool(runs) and runs[-1][1] == bears_loss and token not in controls and runs[-1][0][-1] not in controls
        if joins:
            runs[-1][0].append(token)
        else:
            runs.append(([token], bears_loss))
    return runs


def _line(finding: Finding) -> str:
    return f"{finding.shard}: row {finding.row} (--row {finding.number}): {finding.check}: {finding.detail}"
