"""The first reading of the sources: how many rows there are, which of them are unusable, and which are seeds.

Nothing of a row is kept but what lineages need, so memory stays flat. Rows are read again when they are cleaned and
when they are encoded: reading is cheap beside those, and a copy of the sources would cost their size on disk.
"""

import collections
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxwiz import files
from jaxwiz.console import progress
from jaxwiz.data.lineage import Lineages
from jaxwiz.data.sources import Reject, Row, read_source
from jaxwiz.files import UserError


class DataError(UserError):
    """Sources that make no dataset; the message says why and what to change."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the sources hold.

    Attributes:
      rows: of each source, usable or not.
      unusable: rows that cannot be used, by reason.
    """

    rows: tuple[int, ...]
    unusable: dict[str, int]

    @property
    def source_rows(self) -> int:
        """Rows of all sources."""
        return sum(self.rows)

    @property
    def unusable_rows(self) -> int:
        """Rows that cannot be used."""
        return sum(self.unusable.values())

    def save(self, path: Path) -> None:
        """Writes the survey as JSON."""
        files.write_text(path, json.dumps(dataclasses.asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Survey":
        """Returns what `save` wrote."""
        data = json.loads(path.read_text())
        return cls(tuple(data["rows"]), data["unusable"])


def read_all(sources: Sequence[Path]) -> Iterator[Row | Reject]:
    """Yields the rows and rejects of all sources, in order."""
    for source in sources:
        yield from read_source(source)


def survey_sources(sources: Sequence[Path], lineages: Lineages, unusable: Path) -> Survey:
    """Returns what the sources hold, after showing every usable row to `lineages`.

    Args:
      sources: files to read.
      lineages: takes note of the rows.
      unusable: becomes a list of the unusable rows, a line of JSON each.

    Raises:
      DataError: a source holds no rows.
      UserError: a source cannot be read at all.
    """
    rows = []
    reasons: collections.Counter[str] = collections.Counter()
    with (
        files.atomic_file(unusable) as partial,
        open(partial, "w", encoding="utf-8") as listed,
        progress("read", None, "rows") as advance,
    ):
        for source in sources:
            count = 0
            for item in read_source(source):
                count += 1
                if isinstance(item, Row):
                    lineages.add(item)
                else:
                    reasons[item.reason] += 1
                    listed.write(item.to_json() + "\n")
                advance()
            if not count:
                raise DataError(f"{source}: holds no rows; give a file of instructions with answers, or leave it out")
            rows.append(count)
    return Survey(tuple(rows), dict(reasons))


def too_many_unusable(unusable: int, source_rows: int, max_rejected_share: float, listed: Path) -> DataError:
    """Returns the error that ends a run whose sources are too bad.

    Args:
      unusable: rows that cannot be used.
      source_rows: rows of all sources.
      max_rejected_share: the largest part of them that may be unusable.
      listed: the list of these rows, a line of JSON each.
    """
    with open(listed, encoding="utf-8") as lines:
        first = json.loads(next(lines))
    return DataError(
        f"{unusable} of {source_rows} source rows ({100 * unusable / source_rows:.1f}%) cannot be used, more than "
        f"max_rejected_share = {max_rejected_share}; the first: {first['file']}:{first['number']}: {first['reason']}: "
        f"{first['detail']}; all are in {listed}; correct them or raise max_rejected_share"
    )
