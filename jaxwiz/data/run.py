"""The data stage: instructions with answers in, packed and masked rows of tokens out.

    jaxwiz data configs/data/wizardcoder.yaml

Rows stream through: read and survey, clean, encode block by block, plan the packing, write shard by shard, manifest.
Blocks and shards depend on config and inputs alone and are whole files, made here or on the nodes of a cluster; a
killed run goes on with the next one that is missing and ends with the same bytes (see `jaxwiz.data.job`). The number of
shards is known before the first is written (see `jaxwiz.data.layout`), so none is renamed later.

Memory doesn't grow with the text: 12 bytes an example, 300 bytes an evolved seed, and what cleaning keeps. On disk the
working state takes 4 bytes a token until the run ends.
"""

import collections
import dataclasses
import functools
import itertools
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import Finding
from jaxwiz.console import progress, warn
from jaxwiz.data.blocks import ROWS_PER_BLOCK, RowBlock, block_path, encode_blocks, read_reject_lines
from jaxwiz.data.check import check_data
from jaxwiz.data.cleaning import clean_sources, count_exclusions, without_excluded
from jaxwiz.data.config import DataConfig
from jaxwiz.data.encode import REFUSED
from jaxwiz.data.hub import local_files
from jaxwiz.data.job import describe_purpose, open_job
from jaxwiz.data.layout import Layout, plan_layouts
from jaxwiz.data.lineage import Lineages
from jaxwiz.data.manifest import LeftOut, make_manifest, summarize
from jaxwiz.data.pack import PackedExamples
from jaxwiz.data.shards import Shard, shard_name, write_metadata, write_shards
from jaxwiz.data.sources import Reject, Row
from jaxwiz.data.survey import DataError, Survey, read_all, survey_sources, too_many_unusable
from jaxwiz.fanout import fan_out
from jaxwiz.text.templates import load_template
from jaxwiz.text.tokenizer import load_tokenizer


def run(config: DataConfig) -> Path:
    """Returns `config.out` after writing `dataset/`, `manifest.json`, `summary.txt` and, if any, `rejects.jsonl` there.

    Raises:
      UserError: a source or the tokenizer cannot be used, too many rows are bad, or nothing is left to train on.
    """
    _Run(config).finish()
    return config.out


def check(config: DataConfig) -> list[Finding]:
    """Returns what a run would meet: tokenizer, template, the first rows of each source, the cluster."""
    return check_data(config)


class _Run:
    """One run. Every step makes what is missing of its part and leaves the rest."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(config.tokenizer)
        self._template = load_template(config.template, self._tokenizer)
        self._sources = local_files(config.sources)
        self._digests = [_digest(path) for path in self._sources]
        digests = {"tokenizer": self._tokenizer.digest, "template.sha256": self._template.digest}
        self._job = open_job(config, describe_purpose(config, self._digests, digests))

    def finish(self) -> None:
        """Makes all that is missing."""
        job = self._job
        if not job.complete:
            survey, lineages = self._survey()
            self._clean()
            blocks = self._encode(survey, lineages)
            layouts = plan_layouts(blocks, self._config.sequence_length, self._config.pack_window)
            left_out = self._list_rejects(blocks)
            refused = left_out.left_out.get(REFUSED, 0)
            self._require_few(survey.unusable_rows + refused, survey.source_rows, job.result / "rejects.jsonl")
            self._require_examples(survey, layouts)
            shards = self._write_shards(blocks, layouts)
            write_metadata(job.dataset, shards, self._config.sequence_length)
            self._write_manifest(survey, left_out, shards)
        job.publish()

    def _survey(self) -> tuple[Survey, Lineages]:
        config, work = self._config, self._job.work
        survey_path, lineage_path, unusable = work / "survey.json", work / "lineages.json", work / "unusable.jsonl"
        if survey_path.exists():
            return Survey.load(survey_path), Lineages.load(lineage_path, config.heldout_share, config.seed)
        lineages = Lineages(config.heldout_share, config.seed)
        survey = survey_sources(self._sources, lineages, unusable)
        self._require_few(survey.unusable_rows, survey.source_rows, unusable)
        lineages.save(lineage_path)
        survey.save(survey_path)
        return survey, lineages

    def _clean(self) -> None:
        config, job = self._config, self._job
        if config.clean is not None and not self._exclusions.exists():
            clean_sources(self._sources, config.clean, config.engine, job.work / "clean", self._exclusions, job.result)

    def _items(self) -> Iterator[Row | Reject]:
        """Yields what is left of the sources after cleaning."""
        items = read_all(self._sources)
        return items if self._config.clean is None else without_excluded(items, self._exclusions)

    def _encode(self, survey: Survey, lineages: Lineages) -> list[Path]:
        """Returns the files of all blocks."""
        config = self._config
        paths = [block_path(self._job.blocks, number) for number in range(-(-survey.source_rows // ROWS_PER_BLOCK))]
        missing = {number for number, path in enumerate(paths) if not path.exists()}
        if not missing:
            return paths
        work = functools.partial(
            encode_blocks, self._tokenizer, self._template, config.sequence_length, config.over_long
        )
        rows = [
            min(ROWS_PER_BLOCK, survey.source_rows - begin) for begin in range(0, survey.source_rows, ROWS_PER_BLOCK)
        ]
        with progress("encode", sum(rows), "rows", start=sum(rows) - sum(rows[n] for n in missing)) as advance:
            asked = _row_blocks(self._items(), lineages, missing)
            for number, block in fan_out(config.engine, work, asked, ahead=1):
                block.save(paths[number])
                advance(rows[number])
        if not paths[-1].exists():
            raise DataError(
                f"{', '.join(map(str, self._sources))}: lost rows while they were read; run the stage again"
            )
        return paths

    def _list_rejects(self, blocks: Sequence[Path]) -> LeftOut:
        """Returns how many rows were left out or cut, after listing them in `rejects.jsonl`."""
        path = self._job.result / "rejects.jsonl"
        left_out: collections.Counter[str] = collections.Counter()
        cut: collections.Counter[str] = collections.Counter()
        with files.atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as listed:
            for block in blocks:
                for line in read_reject_lines(block):
                    reject = json.loads(line)
                    (cut if reject["kept"] else left_out)[reject["reason"]] += 1
                    listed.write(line)
        if not left_out and not cut:
            path.unlink()
        cleaning = count_exclusions(self._exclusions) if self._config.clean else {}
        return LeftOut(dict(sorted(left_out.items())), dict(sorted(cut.items())), cleaning)

    def _show_rejects(self, path: Path) -> Path:
        """Returns where the user finds a list of rejects, of a run that fails because of them."""
        shown = self._job.out / "rejects.jsonl"
        files.move_into_place(path, shown)
        return shown

    def _require_few(self, unusable: int, source_rows: int, listed: Path) -> None:
        share = self._config.max_rejected_share
        if unusable > share * source_rows:
            raise too_many_unusable(unusable, source_rows, share, self._show_rejects(listed))

    def _require_examples(self, survey: Survey, layouts: dict[str, Layout]) -> None:
        if "train" not in layouts:
            raise DataError(
                f"none of {survey.source_rows} source rows makes an example to train on; "
                f"see {self._show_rejects(self._job.result / 'rejects.jsonl')}"
            )
        if self._config.heldout_share and "heldout" not in layouts:
            warn(f"heldout_share = {self._config.heldout_share}: no lineage is held out, there are too few")

    def _write_shards(self, blocks: Sequence[Path], layouts: dict[str, Layout]) -> dict[str, list[Shard]]:
        """Returns the shards of each split, all of them written."""
        config, dataset = self._config, self._job.dataset
        plan = {
            name: (layout, begin, min(config.rows_per_shard, layout.rows - begin))
            for split, layout in layouts.items()
            for name, begin in _shard_begins(split, layout.rows, config.rows_per_shard)
        }
        written = {name: shard for name in plan if (shard := self._written(name))}

        def gathered() -> Iterator[tuple[str, PackedExamples]]:
            for name, (layout, begin, rows) in plan.items():
                if name not in written:
                    yield name, layout.gather(blocks, begin, rows)

        work = functools.partial(write_shards, config.sequence_length, self._tokenizer.pad_id)
        total = sum(layout.rows for layout in layouts.values())
        with progress("shards", total, "rows", start=sum(shard.rows for shard in written.values())) as advance:
            for name, (shard, content) in fan_out(config.engine, work, gathered()):
                files.write_bytes(dataset / name, content)
                files.write_text(self._facts_path(name), json.dumps(dataclasses.asdict(shard)) + "\n")
                written[name] = shard
                advance(shard.rows)
        return {
            split: [written[name] for name, _ in _shard_begins(split, layout.rows, config.rows_per_shard)]
            for split, layout in layouts.items()
        }

    def _written(self, name: str) -> Shard | None:
        """Returns what is in a shard that an interrupted run wrote; None if it is not there as it should be."""
        path = self._job.dataset / name
        if not self._facts_path(name).exists() or not path.exists():
            return None
        shard = Shard(**json.loads(self._facts_path(name).read_text()))
        return shard if files.sha256_of_file(path) == shard.sha256 else None

    @property
    def _exclusions(self) -> Path:
        return self._job.work / "exclusions.jsonl"

    def _facts_path(self, name: str) -> Path:
        return self._job.work / "shards" / f"{name}.json"

    def _write_manifest(self, survey: Survey, left_out: LeftOut, shards: dict[str, list[Shard]]) -> None:
        sources = [
            {"name": path.name, "sha256": digest, "rows": rows}
            for path, digest, rows in zip(self._sources, self._digests, survey.rows, strict=True)
        ]
        manifest = make_manifest(self._config, self._tokenizer, self._template, sources, left_out, shards)
        files.write_text(self._job.result / "manifest.json", json.dumps(manifest, indent=1) + "\n")
        files.write_text(self._job.result / "summary.txt", summarize(manifest))


def _digest(source: Path) -> str:
    try:
        return files.sha256_of_file(source)
    except OSError as error:
        raise DataError(f"{source}: cannot read ({error.strerror}); check the key 'sources'") from None


def _row_blocks(
    items: Iterable[Row | Reject], lineages: Lineages, missing: Container[int]
) -> Iterator[tuple[int, RowBlock]]:
    """Yields those blocks of the source rows that are missing, each with its number."""
    remaining = iter(items)
    for number in itertools.count():
        block = list(itertools.islice(remaining, ROWS_PER_BLOCK))
        if not block:
            return
        if number in missing:
            yield number, RowBlock(block, [isinstance(item, Row) and lineages.heldout(item) for item in block])


def _shard_begins(split: str, rows: int, rows_per_shard: int) -> list[tuple[str, int]]:
    """Returns the name of each shard of a split, and its first row."""
    begins = range(0, rows, rows_per_shard)
    return [(shard_name(split, index, len(begins)), begin) for index, begin in enumerate(begins)]
