"""`jaxwiz data stats`: counts against rows made by hand, and what the command writes, prints and refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxwiz.cli import main
from jaxwiz.data.histogram import Bar, Histogram
from jaxwiz.data.stats import measure_rows, table_of
from jaxwiz.data.stats_plot import write_plot
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from tests.data.conftest import alpaca_rows

PNG = b"\x89PNG\r\n\x1a\n"


def row(*examples: tuple[int, int], length: int = 10) -> dict[str, np.ndarray]:
    """A row of examples, each given as (tokens, how many of them, at its end, bear loss)."""
    segments, mask = np.zeros(length, np.int32), np.zeros(length, np.bool_)
    begin = 0
    for number, (tokens, trained) in enumerate(examples, start=1):
        segments[begin : begin + tokens] = number
        mask[begin + tokens - trained : begin + tokens] = True
        begin += tokens
    return {"segment_ids": segments, "loss_mask": mask}


@pytest.fixture
def out(make_config) -> Path:
    rows = [*alpaca_rows(40), {"instruction": "long " * 300, "input": "", "output": "x"}, {"instruction": "bare"}]
    config = make_config(rows, heldout_share=0.2, template="chatml", rows_per_shard=2)
    run_step(STAGES["data"], config)
    return config.out


def test_counts_of_rows_made_by_hand():
    seen: list[None] = []
    rows = [row((4, 1), (4, 3)), row((10, 5)), row((5, 2), (2, 1), (2, 1))]
    stats = measure_rows("train", rows, 10, lambda: seen.append(None))
    assert (stats.rows, stats.examples, stats.tokens, stats.loss_tokens, len(seen)) == (3, 6, 27, 13, 3)
    lengths, shares, fills, members = stats.histograms
    assert {n: int(count) for n, count in enumerate(lengths.counts) if count} == {2: 2, 4: 2, 5: 1, 10: 1}
    assert {n: int(count) for n, count in enumerate(shares.counts) if count} == {250: 1, 400: 1, 500: 3, 750: 1}
    assert {n: int(count) for n, count in enumerate(fills.counts) if count} == {8: 1, 9: 1, 10: 1}
    assert {n: int(count) for n, count in enumerate(members.counts) if count} == {1: 1, 2: 1, 3: 1}
    heading, lines = table_of(stats)
    assert heading == ["train", "mean", "least", "p5", "p25", "p50", "p75", "p95", "p99", "greatest"]
    assert lines[0] == ["tokens of an example", "4.5", "2", "2", "2", "4", "5", "10", "10", "10"]
    assert lines[2][:3] == ["fill of a row", "90.0%", "80.0%"]


def test_an_empty_row_counts_as_a_row():
    stats = measure_rows("train", [row(), row((3, 1))], 10, lambda: None)
    assert (stats.rows, stats.examples, stats.histograms[2].least, stats.histograms[3].least) == (2, 1, 0, 0)


@pytest.mark.parametrize("percent", [0, 1, 5, 25, 50, 75, 99, 100])
def test_percentiles_are_those_of_the_values(percent: int):
    values = np.random.default_rng(0).integers(0, 50, 1001)
    histogram = Histogram("", "", np.bincount(values))
    assert histogram.percentile(percent) == np.percentile(values, percent, method="inverted_cdf")
    assert histogram.mean == pytest.approx(values.mean())


def test_bars_hold_every_value_once():
    histogram = Histogram("", "", np.array([0, 0, 3, 0, 1, 5, 0, 2, 0]))
    assert histogram.bars(6) == [Bar(2, 2, 3), Bar(3, 3, 0), Bar(4, 4, 1), Bar(5, 5, 5), Bar(6, 6, 0), Bar(7, 7, 2)]
    assert histogram.bars(4) == [Bar(2, 3, 3), Bar(4, 5, 6), Bar(6, 7, 2)]
    assert histogram.bars(1) == [Bar(2, 7, 11)]
    assert Histogram("", "", np.array([0, 7])).bars(60) == [Bar(1, 1, 7)]


def test_the_command_prints_and_draws(out: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("matplotlib", reason="the PNG is drawn by matplotlib, which is not installed")
    assert main(["data", "stats", str(out)]) == 0
    printed = capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    train = manifest["splits"]["train"]
    assert (out / "summary.txt").read_text() in printed
    assert "left out: 1 missing field, 1 over-long, of 42 source rows\n" in printed
    assert f"train: {train['examples']:,} examples in {train['rows']:,} rows" in (out / "stats.html").read_text()
    mean = train["tokens"] / train["examples"]
    line = next(line for line in printed.splitlines() if line.startswith("tokens of an example"))
    assert line.split()[4] == f"{mean:,.1f}"
    assert f"heldout: {manifest['splits']['heldout']['examples']:,} examples" in (out / "stats.html").read_text()
    assert (out / "stats.png").read_bytes().startswith(PNG)
    assert run_step(STAGES["data"], _config_of(out)) == "skipped", "drawings beside the results are no other work"


def _config_of(out: Path):
    from jaxwiz.config import read_config_file
    from jaxwiz.step import parse_stage_config

    return parse_stage_config(STAGES["data"], read_config_file(out / "config.yaml"), "config.yaml")


def test_equal_data_gives_an_equal_picture(tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the PNG is drawn by matplotlib, which is not installed")
    stats = measure_rows("train", [row((4, 1), (4, 3))], 10, lambda: None)
    for name in ("one", "two"):
        write_plot(tmp_path / name, "a title with $ and $x^{", [stats])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes().startswith(PNG)


def test_without_matplotlib_the_page_is_written_all_the_same(out: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = tmp_path / "page.html"
    assert main(["data", "stats", str(out / "dataset"), "--html", str(page)]) == 0
    assert "pip install 'jaxwiz[plots]'" in capsys.readouterr().err
    assert page.exists() and not (out / "stats.png").exists()
    page.unlink()
    assert main(["data", "stats", str(out), "--png", str(tmp_path / "plot.png")]) == 2
    assert "pip install 'jaxwiz[plots]'" in capsys.readouterr().err
    assert not (out / "stats.html").exists(), "asked for in vain, so nothing was begun"


def test_what_is_no_dataset_is_one_message(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture):
    assert main(["data", "stats", str(tmp_path / "nowhere")]) == 2
    assert "jaxwiz data stats: " in (message := capsys.readouterr().err) and "nowhere/manifest.json" in message
    assert main(["data", "stats", str(out), "--html", str(tmp_path)]) == 2
    assert "name the file to write" in capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["splits"]["train"]["loss_share"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert main(["data", "stats", str(out)]) == 2
    assert "lacks 'loss_share'" in capsys.readouterr().err


def test_the_stage_still_takes_a_config(capsys: pytest.CaptureFixture):
    assert main(["data", "./stats"]) == 2
    assert "stats: cannot read the config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    assert "jaxwiz data stats" in capsys.readouterr().out
