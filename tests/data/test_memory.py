"""Memory: a run of four times the rows needs hardly more. The whole at 2 million rows: benchmarks/data_scale.py."""

import json
import tracemalloc

from jaxwiz.data import run as stage
from jaxwiz.data.run import run
from tests.data.conftest import alpaca_rows

BYTES_A_ROW = 150  # lengths, places and names; the text of a row, held as Python has it, takes 1,000


def test_memory_hardly_grows_with_rows(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "ROWS_PER_BLOCK", 64)
    monkeypatch.setattr("jaxwiz.data.lineage.FEW_LINEAGES", 64)
    peaks = {}
    for rows in (100, 400, 1600):  # the first one only warms up
        source = tmp_path / f"{rows}.jsonl"
        with open(source, "w") as file:
            for row in alpaca_rows(rows):
                file.write(json.dumps({**row, "input": "x" * 60}) + "\n")
        config = make_config(source, out=str(rows), heldout_share=0.1, rows_per_shard=100, pack_window=256)
        tracemalloc.start()
        run(config)
        peaks[rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[1600] - peaks[400] < 1200 * BYTES_A_ROW, peaks
