"""Several datasets of a run: their rows add up, their shares are those of the config, and they must be alike."""

import json
import shutil
from pathlib import Path

import pytest

from jaxwiz.train.config import BatchConfig, MixedDataset, TrainConfig
from jaxwiz.train.dataset import ManifestError, open_heldout_feed, open_train_feed, read_manifests


@pytest.fixture
def config(tiny_dataset: Path, tmp_path: Path) -> TrainConfig:
    shutil.copytree(tiny_dataset, tmp_path / "second")
    return TrainConfig(
        out=tmp_path / "out",
        dataset=tiny_dataset,
        mix=(MixedDataset(path=tmp_path / "second", weight=0.5),),
        checkpoint=tmp_path,
        batch=BatchConfig(rows=6),
        steps=1,
    )


def test_rows_of_all_datasets_add_up_and_shares_are_kept(config: TrainConfig) -> None:
    alone = read_manifests(TrainConfig(out=config.out, dataset=config.dataset, checkpoint=config.out, steps=1))
    assert read_manifests(config).rows == {split: 2 * rows for split, rows in alone.rows.items()}
    feed = open_train_feed(config)
    for step in range(3):
        located = [feed.locate(step, place) for place in range(6)]
        folders = [place[0].parents[1] for place in located if place]
        assert (folders.count(config.dataset), folders.count(config.mix[0].path)) == (4, 2)
    heldout = open_heldout_feed(config, 2)
    assert heldout is not None and heldout.rows == 2 * alone.rows["heldout"]


@pytest.mark.parametrize("field", ["tokenizer", "template"])
def test_datasets_of_a_mix_must_be_alike(config: TrainConfig, field: str) -> None:
    path = config.mix[0].path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[field]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=f"{field}_digest '0000.*same settings for all datasets"):
        read_manifests(config)
