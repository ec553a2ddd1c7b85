"""Data that is damaged ends the command by file and row, with an exit code; `skip` leaves rows out and counts them."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import save_weights
from jaxwiz.config import to_yaml
from jaxwiz.data.feed import Feed
from jaxwiz.model.params import init_params
from jaxwiz.train.config import TrainConfig
from tests.faults.lives import ROOT, live
from tests.train.test_bad_data import flip_a_bit, train_shard
from tests.train.tiny import MODEL

pytestmark = pytest.mark.faults


@pytest.fixture
def config(whole: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The undisturbed run's config with data and results of its own."""
    data = shutil.copytree(whole.dataset, tmp_path / "data")
    return dataclasses.replace(whole, out=tmp_path / "out", dataset=data)


def train(config: TrainConfig) -> subprocess.CompletedProcess[str]:
    """Returns what the command came to."""
    path = config.out.with_suffix(".yaml")
    path.write_text(f"stage: train\n{to_yaml(config)}")
    command = [sys.executable, "-m", "jaxwiz.cli", "train", str(path)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=300)


def assert_ended_by(config: TrainConfig, *told: str) -> None:
    ended = train(config)
    assert ended.returncode == 2, ended.stderr
    for part in told:
        assert part in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and not (config.out / "model").exists()


def test_a_flipped_bit(config: TrainConfig) -> None:
    path, rows = flip_a_bit(config.dataset)
    ended = train(config)
    assert ended.returncode == 2, ended.stderr
    assert any(f"{path}: row {row} cannot be read" in ended.stderr for row in rows), ended.stderr
    assert "Traceback" not in ended.stderr and not (config.out / "model").exists()


def test_a_truncated_shard(config: TrainConfig) -> None:
    path = train_shard(config.dataset)
    path.write_bytes(path.read_bytes()[:-64])
    assert_ended_by(config, f"{path}: row ", "cannot be read")


def test_a_missing_shard(config: TrainConfig) -> None:
    path = train_shard(config.dataset)
    path.unlink()
    assert_ended_by(config, f"{path}: this shard is missing")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("tokenizer", "tokenizer 000000000000, but "),
        ("template", "was 000000000000, but is "),
        ("sequence_length", "describes rows of 128 tokens"),
    ],
)
def test_a_manifest_that_does_not_match(config: TrainConfig, key: str, told: str) -> None:
    path = config.dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    if key == "sequence_length":
        manifest[key] = 128
    else:
        manifest[key]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert_ended_by(config, str(path), told)


def test_tokens_that_the_model_does_not_have(config: TrainConfig, tiny_tokenizer_folder: Path, tmp_path: Path) -> None:
    feed = Feed(config.dataset / "dataset", "train", 1, seed=0, shuffle=False)
    highest = max(int(feed.batch(row).tokens.max()) for row in range(feed.rows))
    model = dataclasses.replace(MODEL, vocab_size=highest)
    checkpoint = tmp_path / "small"
    save_weights(checkpoint, init_params(model, jax.random.key(0)), model, tiny_tokenizer_folder, {"made_by": "tests"})
    small = dataclasses.replace(config, checkpoint=checkpoint)
    assert_ended_by(small, f"but the model of {checkpoint} has {highest} tokens")
    path = config.dataset / "manifest.json"  # as if it promised less than the rows hold
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["vocab_size"] = highest
    path.write_text(json.dumps(manifest))
    ended = train(small)
    assert ended.returncode == 2, ended.stderr
    named = rf"array_record-\S+: row \d+, in the batch of step \d+, holds token id \d+, but the model has {highest} "
    assert re.search(named, ended.stderr) and "Traceback" not in ended.stderr, ended.stderr


def test_with_skip_the_run_ends_well_and_tells_what_it_left_out(config: TrainConfig) -> None:
    path, rows = flip_a_bit(config.dataset)
    faults = dataclasses.replace(config.intervals.faults, on_corrupt="skip")
    tolerant = dataclasses.replace(config, intervals=dataclasses.replace(config.intervals, faults=faults))
    done = live(tolerant)
    assert done.returncode == 0, done.stderr
    assert f"{path}: row {rows[0]} is left out" in done.stderr
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["corrupt_rows"] == {str(path): len(rows)}
    assert f"{len(rows)} row(s) left out, they could not be read" in (config.out / "summary.txt").read_text()
    assert np.isfinite([loss for _, loss in summary["curve"]]).all()
