"""The stage as a whole: it learns, it resumes bit for bit after SIGKILL, and a mesh of 8 devices changes nothing."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import load_weights, provenance, template, tokenizer_folder
from jaxwiz.config import to_yaml
from jaxwiz.sharding.mesh import MeshConfig
from jaxwiz.text.tokenizer import load_tokenizer
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, OptimizerConfig, TrainConfig
from jaxwiz.train.job import TrainError
from jaxwiz.train.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[2]


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
        intervals=IntervalsConfig(checkpoint_steps=2, eval_steps=3),
    )


@pytest.fixture(scope="module")
def finished(config: TrainConfig) -> Path:
    """The folder of an uninterrupted run."""
    return train_stage.run(config)


def run_in_process(config: TrainConfig, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    path = config.out.with_suffix(".yaml")
    path.write_text(to_yaml(config))
    return subprocess.run(
        [sys.executable, "-m", "tests.train.killed_run", str(path), *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        capture_output=True,
        text=True,
        timeout=240,
    )


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


def test_tensorboard_can_read_the_curves(finished: Path) -> None:
    (events,) = (finished / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes() and b"heldout/loss" in events.read_bytes()


def test_a_run_killed_twice_ends_bit_for_bit_as_an_uninterrupted_one(config: TrainConfig, finished: Path) -> None:
    interrupted = dataclasses.replace(config, out=config.out.with_name("killed"))
    for step, *saved_step in (("3", "2"), ("5",)):
        died = run_in_process(interrupted, step, *saved_step)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert read_metrics(interrupted.out / "metrics.jsonl")[-1]["step"] == int(step)
    last = run_in_process(interrupted)
    assert last.returncode == 0, last.stderr
    assert re.search("continues after step [24] of 6", last.stderr), last.stderr
    assert (interrupted.out / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    resumed, whole = load_weights(interrupted.out / "model"), load_weights(finished / "model")
    assert all(jax.tree.leaves(jax.tree.map(lambda one, other: bool((one == other).all()), resumed, whole)))


def test_eight_devices_give_the_losses_of_one(config: TrainConfig, finished: Path, tmp_path: Path) -> None:
    """One mesh through the whole stage; tests/train/test_mesh_curve.py has the others."""
    mesh, batch = MeshConfig(data=2, fsdp=2, tensor=2), BatchConfig(rows=8, micro_batches=2)
    sharded = dataclasses.replace(config, out=tmp_path / "sharded", mesh=mesh, batch=batch)
    done = run_in_process(sharded, devices=8)
    assert done.returncode == 0, done.stderr
    assert "8 device(s)" in done.stderr
    lines, expected = (read_metrics(folder / "metrics.jsonl") for folder in (sharded.out, finished))
    for line, expected_line in zip(lines, expected, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(config: TrainConfig, tmp_path: Path) -> None:
    absurd = OptimizerConfig(learning_rate=1e30, schedule="constant", max_grad_norm=None)
    with pytest.raises(TrainError, match=r"step \d: (loss|grad_norm) = (nan|inf).*learning_rate"):
        train_stage.run(
            dataclasses.replace(config, out=tmp_path / "absurd", optimizer=absurd, intervals=IntervalsConfig())
        )
    assert not (tmp_path / "absurd" / "model").exists()
