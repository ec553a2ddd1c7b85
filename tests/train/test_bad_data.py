"""Rows and shards that are not what was made: named, or left out and counted; never trained on, never skipped over."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.data.feed import DatasetError, Feed
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.processes import Processes
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.bad_data import CorruptRows, ShardCheck, count_corrupt_rows
from jaxwiz.train.dataset import ManifestError
from jaxwiz.train.feeding import device_batches


@pytest.fixture
def folder(tiny_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dataset, tmp_path / "data")


def train_shard(folder: Path) -> Path:
    (path,) = (folder / "dataset").glob("*-train.array_record-*")
    return path


def flip_a_bit(folder: Path) -> tuple[Path, list[int]]:
    """Flips a bit in the midst of the shard's records; returns the shard and the rows that it cost."""
    path = train_shard(folder)
    content = bytearray(path.read_bytes())
    content[3000] ^= 1  # records are small and stand at the file's begin; much of the rest is padding
    path.write_bytes(content)
    rows = unreadable_rows(folder)
    assert rows, "the flipped bit is in no row"
    return path, rows


def unreadable_rows(folder: Path) -> list[int]:
    feed, rows = Feed(folder / "dataset", "train", 1, seed=0, shuffle=False), []
    for step in range(feed.rows):
        try:
            feed.batch(step)
        except DatasetError:
            rows.append(feed.locate(step, 0)[1])  # type: ignore[index]
    return rows


def check(folder: Path, tolerant: bool = False) -> ShardCheck:
    return ShardCheck([folder], Processes(), tolerant)


def test_sound_shards_pass(folder: Path) -> None:
    check(folder).finish()


def test_a_flipped_bit_is_an_error_that_names_file_and_row(folder: Path) -> None:
    path, rows = flip_a_bit(folder)
    with pytest.raises(ManifestError, match=rf"{path}: row {rows[0]} cannot be read"):
        check(folder).finish()


def test_a_truncated_shard_is_an_error_that_names_file_and_row(folder: Path) -> None:
    path = train_shard(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ManifestError, match=rf"{path}: row \d+ cannot be read"):
        check(folder).finish()
    with pytest.raises(DatasetError, match=rf"{path}: row \d+ cannot be read"):
        for step in range(3):
            Feed(folder / "dataset", "train", 2, seed=0).batch(step)


def test_a_missing_shard_is_named_before_anything_is_read(folder: Path) -> None:
    train_shard(folder).unlink()
    with pytest.raises(DatasetError, match=r"-train\.array_record-\S+: this shard is missing"):
        Feed(folder / "dataset", "train", 2, seed=0)
    with pytest.raises(ManifestError, match=r"cannot be read \(No such file"):
        check(folder).finish()


def test_another_file_in_a_shards_place_is_found_though_its_rows_are_sound(folder: Path) -> None:
    (heldout,) = (folder / "dataset").glob("*-heldout.array_record-*")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["heldout"]["shards"][0]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=rf"{heldout}: SHA-256 \w+, but manifest.json says 000000000000"):
        check(folder).finish()


def test_with_skip_a_row_is_replaced_by_an_empty_one_and_counted(folder: Path, tmp_path: Path, capsys) -> None:
    whole = Feed(folder / "dataset", "train", 3, seed=0)
    expected = [whole.batch(step) for step in range(2 * whole.steps_per_epoch)]
    path, rows = flip_a_bit(folder)
    noted = CorruptRows(tmp_path / "out", Processes())
    feed = Feed(folder / "dataset", "train", 3, seed=0, on_corrupt=noted)
    for step, before in enumerate(expected):
        found = feed.batch(step)
        for place in range(3):
            located = feed.locate(step, place)
            if located is not None and located[1] in rows:
                assert not found.tokens[place].any() and not found.loss_mask[place].any()
            else:
                np.testing.assert_array_equal(found.tokens[place], before.tokens[place])
    assert count_corrupt_rows(tmp_path / "out") == {str(path): len(rows)}  # once, though two epochs met them
    assert f"{path}: row {rows[0]} is left out" in capsys.readouterr().err
    check(folder, tolerant=True).finish()
    assert f"warning: train: {path}: row {rows[0]} cannot be read" in capsys.readouterr().err


def test_with_skip_a_row_of_unknown_tokens_is_left_out_too(folder: Path, tmp_path: Path) -> None:
    noted = CorruptRows(tmp_path / "out", Processes())
    feed = Feed(folder / "dataset", "train", 2, seed=0, on_corrupt=noted)
    sharding = batch_sharding(make_mesh(MeshConfig()))
    tokens = feed.batch(0).tokens
    highest = int(tokens.max())
    expected = np.where((tokens == highest).any(axis=1, keepdims=True), 0, tokens)
    with device_batches(feed, sharding, 0, 1, vocab_size=highest) as batches:
        (batch,) = batches
    np.testing.assert_array_equal(jax.device_get(batch["tokens"]), expected)
    lines = [json.loads(line) for line in (tmp_path / "out" / "corrupt-rows.jsonl").read_text().splitlines()]
    assert lines and all(f"token id {highest}, but the model has" in line["cause"] for line in lines)
