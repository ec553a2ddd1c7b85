"""A trained checkpoint names every dataset of its mix by the digest of its manifest, and what it weighed."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxwiz.files import sha256_of_file
from jaxwiz.train import result
from jaxwiz.train.config import MixedDataset, TrainConfig


def test_the_manifests_of_a_mix_are_named(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("second", "third"):
        shutil.copytree(tiny_dataset, tmp_path / name)
        with open(tmp_path / name / "manifest.json", "a") as manifest:
            manifest.write("\n" * len(name))  # another content
    config = TrainConfig(
        out=tmp_path / "out",
        dataset=tiny_dataset,
        mix=tuple(
            MixedDataset(path=tmp_path / name, weight=weight) for name, weight in (("second", 0.5), ("third", 2))
        ),
        checkpoint=tmp_path,
        steps=3,
    )
    config.out.mkdir()
    (config.out / "metrics.jsonl").write_text('{"step": 1, "tokens": 10}\n{"step": 2, "tokens": 5}\n')
    monkeypatch.setattr(result, "provenance", lambda checkpoint: {"source": "a base", "sha256": "ab"})
    found = result.trained_provenance(SimpleNamespace(config=config), 3)
    digests = [
        sha256_of_file(path / "manifest.json") for path in (tiny_dataset, tmp_path / "second", tmp_path / "third")
    ]
    assert len(set(digests)) == 3
    assert found["dataset"] == {
        "manifest_sha256": digests[0],
        "mix": [{"manifest_sha256": digests[1], "weight": 0.5}, {"manifest_sha256": digests[2], "weight": 2.0}],
    }
    assert found["train_tokens"] == 15
    assert found["source"] == "a base, fine-tuned for 3 steps"
