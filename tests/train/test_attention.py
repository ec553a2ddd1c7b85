"""A run whose attention kernel is wrong stops before its first step; one whose kernel is sound says how sound."""

import dataclasses
from pathlib import Path

import jax
import pytest

from jaxwiz.files import UserError
from jaxwiz.model.attention import blocked_attention
from jaxwiz.model.attention_check import AttentionMismatchError
from jaxwiz.model.attention_kernels import KERNELS, Kernel
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import ComputeConfig, TrainConfig


@pytest.fixture
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(out=tmp_path / "out", dataset=tiny_dataset, checkpoint=tiny_checkpoint, steps=1)


def test_a_kernel_that_ignores_segments_stops_the_run(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
        return blocked_attention(q, k, v, None)

    monkeypatch.setitem(KERNELS, "xla", Kernel(careless, partitioned=True))
    with pytest.raises(AttentionMismatchError, match=r"kernel 'xla' is wrong on packed rows of 256 tokens"):
        train_stage.run(config)
    assert not (config.out / "model").exists() and not list((config.out / "state").glob("*"))


def test_the_run_says_which_kernel_it_chose_and_how_far_it_is_from_the_definition(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train_stage.run(config)
    assert "attention kernel xla, compared with the definition: output" in capsys.readouterr().err


def test_a_kernel_of_another_device_is_refused_by_the_check_and_before_the_run(config: TrainConfig) -> None:
    other = dataclasses.replace(config, compute=ComputeConfig(attention="splash"))
    errors = [finding.message for finding in train_stage.check(other) if finding.level == "error"]
    assert len(errors) == 1 and "compute.attention = 'splash'" in errors[0]
    with pytest.raises(UserError, match=r"compute.attention = 'splash'.*it is for TPUs, and this is a cpu"):
        train_stage.run(other)
