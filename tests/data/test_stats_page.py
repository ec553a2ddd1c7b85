"""The page of `jaxwiz data stats` in a real browser: bars, what they say, both colour schemes, a hostile path."""

from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from tests.chromium import Chromium
from tests.data.conftest import alpaca_rows

HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_page_shows_histograms(make_config, tmp_path: Path, chromium: Chromium) -> None:
    config = make_config(alpaca_rows(60), out=HOSTILE, heldout_share=0.2, sequence_length=512)
    run_step(STAGES["data"], config)
    page = tmp_path / "stats.html"
    assert main(["data", "stats", str(config.out), "--html", str(page)]) == 0
    chromium.open(page)
    assert HOSTILE in chromium.run("document.querySelector('h1').textContent")
    assert chromium.run("document.querySelectorAll('img, script').length") == 0
    assert chromium.run("document.querySelectorAll('svg').length") == 8, "four of each split"
    told = chromium.run("[...document.querySelector('svg').querySelectorAll('.bar title')].map(t => t.textContent)")
    counted = [int(one.split(": ")[1].removesuffix(" examples").replace(",", "")) for one in told]
    heading = chromium.run("document.querySelector('h2').textContent")
    assert heading.startswith(f"train: {sum(counted)} examples in ")
    heights = chromium.run(
        "[...document.querySelector('svg').querySelectorAll('.bar')].map(b => b.getBoundingClientRect().height)"
    )
    tallest = max(range(len(counted)), key=counted.__getitem__)
    assert max(heights) == heights[tallest] > 50
    assert all(
        height == pytest.approx(count / counted[tallest] * heights[tallest], abs=1)
        for height, count in zip(heights, counted, strict=True)
    )
    assert chromium.run(
        "[...document.querySelectorAll('svg')].every(svg => [...svg.querySelectorAll('text, rect')].every(part => "
        "{ const a = part.getBoundingClientRect(), b = svg.getBoundingClientRect(); "
        "return a.left >= b.left - 1 && a.right <= b.right + 1 && a.bottom <= b.bottom + 1 }))"
    ), "everything stands within its drawing"
    fills = {}
    for scheme in ("light", "dark"):
        chromium.prefer(scheme)
        fills[scheme] = chromium.run("getComputedStyle(document.querySelector('.bar')).fill")
    assert fills["light"] != fills["dark"]
    chromium.resize(390, 800)
    assert chromium.run("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
    assert chromium.requests() == [page.resolve().as_uri()]
    assert chromium.complaints() == []
