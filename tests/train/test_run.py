"""The stage as a whole: it learns, and a mesh of 8 devices changes nothing; what kills it is in tests/faults."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import load_weights, provenance, template, tokenizer_folder
from jaxwiz.sharding.mesh import MeshConfig
from jaxwiz.text.tokenizer import load_tokenizer
from jaxwiz.train import run as train_stage
from jaxwiz.train.anomalies import TooManyBadStepsError
from jaxwiz.train.config import (
    BatchConfig,
    ComputeConfig,
    FaultsConfig,
    IntervalsConfig,
    OptimizerConfig,
    TrainConfig,
)
from jaxwiz.train.metrics import read_metrics
from tests.faults.lives import live


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return TrainConfig(
        out=tmp_path_factory.mktemp("train") / "whole",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
        batch=BatchConfig(rows=8, micro_batches=1),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=6,
        seed=3,
        intervals=IntervalsConfig(checkpoint_steps=3, eval_steps=3, keep_best=1),
    )


@pytest.fixture(scope="module")
def finished(config: TrainConfig) -> Path:
    """The folder of an uninterrupted run."""
    return train_stage.run(config)


def test_a_run_lowers_train_and_heldout_loss_and_says_so(config: TrainConfig, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [step for step, _ in summary["curve"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in summary["heldout_curve"]] == [0, 3, 6]
    assert summary["curve"][-1][1] < summary["curve"][0][1] - 0.1
    assert summary["heldout_loss_after"] < summary["heldout_loss_before"] - 0.1
    assert summary["heldout_loss_before"] == pytest.approx(np.log(384), abs=0.3)  # random weights know nothing
    assert 0 < summary["loss_tokens"] < summary["train_tokens"] <= 6 * 8 * 256
    assert summary["tokens_per_s"] > 0 and 0 < summary["mfu"] < 1 and "matmul" in summary["peak_flops_source"]
    assert "held-out loss" in (finished / "summary.txt").read_text()


def test_the_result_is_a_checkpoint_with_its_tokenizer_and_origin(config: TrainConfig, finished: Path) -> None:
    before, after = load_weights(config.checkpoint), load_weights(finished / "model")
    manifest = json.loads((config.dataset / "manifest.json").read_text())
    assert template(finished / "model") == manifest["template"]["name"]
    assert all(jax.tree.leaves(jax.tree.map(lambda one, other: bool((one != other).any()), before, after)))
    tokenizers = [load_tokenizer(tokenizer_folder(folder)) for folder in (config.checkpoint, finished / "model")]
    assert tokenizers[0].digest == tokenizers[1].digest
    assert provenance(finished / "model")["checkpoint"] == {"made_by": "tests"}


def test_a_state_says_what_it_is_and_how_good(config: TrainConfig, finished: Path) -> None:
    (state,) = (finished / "state").iterdir()
    record = json.loads((state / "checkpoint.json").read_text())
    heldout = dict(json.loads((finished / "summary.json").read_text())["heldout_curve"])
    assert (record["step"], record["metrics"]) == (3, {"heldout_loss": heldout[3]})
    assert record["config"]["seed"] == 3 and record["inputs"].keys() == {"dataset", "checkpoint"}
    assert record["mesh"]["fsdp"] == 1 and "jax" in record["code"]


def test_tensorboard_can_read_the_curves(finished: Path) -> None:
    (events,) = (finished / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes() and b"heldout/loss" in events.read_bytes()


@pytest.mark.faults
def test_eight_devices_give_the_losses_of_one(config: TrainConfig, finished: Path, tmp_path: Path) -> None:
    """One mesh through the whole stage; tests/train/test_mesh_curve.py has the others."""
    mesh, batch = MeshConfig(data=2, fsdp=2, tensor=2), BatchConfig(rows=8, micro_batches=2)
    sharded = dataclasses.replace(config, out=tmp_path / "sharded", mesh=mesh, batch=batch)
    done = live(sharded, devices=8)
    assert done.returncode == 0, done.stderr
    assert "8 device(s)" in done.stderr
    lines, expected = (read_metrics(folder / "metrics.jsonl") for folder in (sharded.out, finished))
    for line, expected_line in zip(lines, expected, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-4)


def test_a_learning_rate_that_breaks_the_weights_ends_the_run_by_the_steps_it_left_out(
    config: TrainConfig, tmp_path: Path
) -> None:
    absurd = OptimizerConfig(learning_rate=1e30, schedule="constant", max_grad_norm=None)
    intervals = IntervalsConfig(faults=FaultsConfig(max_bad_steps=1))
    broken = dataclasses.replace(config, out=tmp_path / "absurd", optimizer=absurd, intervals=intervals)
    with pytest.raises(
        TooManyBadStepsError, match=r"steps 2 to 3: .* 2 step\(s\) in a row.*learning_rate.*none was saved"
    ):
        train_stage.run(broken)
    skipped = [line["skipped"] for line in read_metrics(broken.out / "metrics.jsonl") if "skipped" in line]
    assert len(skipped) == 2 and all(sum(map(len, line["rows"].values())) <= 8 for line in skipped)
    assert not (broken.out / "model").exists()
