"""Memory, disk and time of duplicate search per million rows; rows are synthetic, a part of them near duplicates.

python benchmarks/cleaning.py --rows 1000000
"""

import argparse
import itertools
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jaxwiz.clean.config import CleanConfig
from jaxwiz.clean.run import find_exclusions
from jaxwiz.clean.texts import Text

WORDS_A_ROW = 120
VOCABULARY = [f"word{number}" for number in range(5000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--near-share", type=float, default=0.2, help="rows that change one word of an earlier one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cleaning.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        answers = find_exclusions(
            synthetic_rows(options.rows, options.near_share), CleanConfig(benchmarks=()), Path(folder)
        )
        first = next(answers)
        disk = sum(entry.stat().st_size for entry in os.scandir(folder))
        out = sum(answer is not None for answer in itertools.chain([first], answers))
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "rows": options.rows,
        "left_out": out,
        "seconds": round(seconds, 1),
        "rows_per_s": round(options.rows / seconds),
        "rss_before_mib": before >> 10,
        "rss_peak_mib": peak >> 10,
        "rss_mib_per_million_rows": round(((peak - before) >> 10) * 1e6 / options.rows),
        "disk_mib_per_million_rows": round(disk / (1 << 20) * 1e6 / options.rows),
    }
    for name, value in result.items():
        print(f"{name:26} {value:>12,}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def synthetic_rows(count: int, near_share: float) -> Iterator[Text]:
    """Yields rows of random words; a share of them repeats one of the last thousand with a word changed."""
    draw = random.Random(0)
    recent: list[list[str]] = []
    for number in range(count):
        if recent and draw.random() < near_share:
            words = list(draw.choice(recent))
            words[draw.randrange(len(words))] = draw.choice(VOCABULARY)
        else:
            words = draw.choices(VOCABULARY, k=WORDS_A_ROW)
            recent.append(words)
            del recent[:-1000]
        yield Text(f"rows.jsonl:{number}", " ".join(words[:40]), " ".join(words[40:]))


if __name__ == "__main__":
    main()
