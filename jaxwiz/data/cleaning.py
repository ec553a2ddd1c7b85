"""Cleaning as a step of a data run: which source rows are left out as repeated or as a benchmark's task, and why.

`jaxwiz.clean` decides; it looks at texts and knows nothing of rows. Here its answers are kept on disk, by the place of
the row among the usable ones, and later laid over the rows as these are read again.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.clean.config import CleanConfig
from jaxwiz.clean.texts import Text
from jaxwiz.data.sources import Reject, Row
from jaxwiz.data.survey import read_all
from jaxwiz.fanout import EngineConfig


def clean_sources(
    sources: Sequence[Path], config: CleanConfig, engine: EngineConfig, work: Path, exclusions: Path, reports: Path
) -> None:
    """Finds the rows that must go.

    Args:
      sources: files to read.
      config: what to look for.
      engine: where to look.
      work: folder for the working state.
      exclusions: becomes the list of these rows.
      reports: folder for `cleaning.json` and `cleaning.html`.
    """
    from jaxwiz.clean.report import write_report
    from jaxwiz.clean.run import find_exclusions

    names = {source: source.name for source in sources}
    if len(set(names.values())) < len(names):
        names = {source: source.as_posix() for source in sources}
    texts = (_text(item, names[item.file]) for item in read_all(sources) if isinstance(item, Row))
    with files.atomic_file(exclusions) as partial, open(partial, "w", encoding="utf-8") as listed:
        for place, exclusion in enumerate(find_exclusions(texts, config, work, engine)):
            if exclusion is not None:
                listed.write(json.dumps({"place": place, **dataclasses.asdict(exclusion)}) + "\n")
        reports.mkdir(parents=True, exist_ok=True)
        write_report(work, reports)


def without_excluded(items: Iterable[Row | Reject], exclusions: Path) -> Iterator[Row | Reject]:
    """Yields the items of all sources, the excluded rows as rejects."""
    with open(exclusions, encoding="utf-8") as listed:
        entries = map(json.loads, listed)
        entry = next(entries, None)
        place = 0
        for item in items:
            if not isinstance(item, Row):
                yield item
                continue
            if entry is not None and entry["place"] == place:
                detail = f"{entry['tier']}: {entry['detail']} ({entry['match']})"
                yield Reject(item.file, item.number, entry["reason"].replace("_", " "), detail)
                entry = next(entries, None)
            else:
                yield item
            place += 1


def count_exclusions(exclusions: Path) -> dict[str, dict[str, int]]:
    """Returns how many rows were excluded, by reason and by the test that found them."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with open(exclusions, encoding="utf-8") as listed:
        for entry in map(json.loads, listed):
            counts[entry["reason"]][entry["tier"]] += 1
    return {reason: dict(sorted(tiers.items())) for reason, tiers in sorted(counts.items())}


def _text(row: Row, file: str) -> Text:
    asked = "\n\n".join(message.text for message in row.messages if message.role == "user")
    return Text(f"{file}:{row.number}", asked, "\n\n".join(row.answers))
