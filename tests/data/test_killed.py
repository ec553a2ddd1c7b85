"""A run that is killed, at any moment and as often as one likes, ends with the bytes of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

from jaxwiz.clean.config import CleanConfig
from jaxwiz.config import to_yaml
from tests.data.conftest import alpaca_rows

ROOT = Path(__file__).parents[2]


def test_a_killed_run_ends_with_the_same_bytes(make_config, tmp_path):
    rows = [*alpaca_rows(70), {"instruction": "x"}, *alpaca_rows(9)]  # some are repeated
    config = make_config(rows, heldout_share=0.2, rows_per_shard=10, pack_window=32, clean=CleanConfig(benchmarks=()))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    command = [
        sys.executable,
        str(Path(__file__).with_name("killing.py")),
        str(tmp_path / "config.yaml"),
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["different"] == []
    shards = [path.name for path in (tmp_path / "whole" / "dataset").glob("*-of-*")]
    assert len(shards) >= 4, "too few shards: the test shows little"
    assert report["kills"]["at a rename"] > 2 * len(shards)
    assert report["kills"]["at random"] >= 5
