"""A changed config continues a run only where that keeps its meaning, or where the change is named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.checkpoint import record
from jaxwiz.config import dump_config
from jaxwiz.sharding.agreement import code_facts
from jaxwiz.sharding.mesh import MeshConfig
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, OptimizerConfig, TrainConfig
from jaxwiz.train.resume import ChangedRunError, _input_digests, continues, require_same_run


@pytest.fixture
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(out=tmp_path / "out", dataset=tiny_dataset, checkpoint=tiny_checkpoint, steps=10)


@pytest.fixture
def saved(config: TrainConfig) -> dict[str, Any]:
    about = {"config": dump_config(config), "inputs": _input_digests(config), "code": code_facts()}
    return json.loads(json.dumps({"step": 4, **about}))


def test_the_same_config_continues_without_a_word(config: TrainConfig, saved: dict[str, Any], capsys) -> None:
    require_same_run(saved, config)
    assert capsys.readouterr().err == ""


def test_what_keeps_the_meaning_passes_with_a_word(config: TrainConfig, saved: dict[str, Any], capsys) -> None:
    changed = dataclasses.replace(
        config,
        mesh=MeshConfig(data=2, fsdp=2),
        batch=BatchConfig(rows=config.batch.rows, micro_batches=2),
        compute=ComputeConfig(remat="full"),
        intervals=IntervalsConfig(checkpoint_steps=3),
    )
    require_same_run(saved, changed)
    said = capsys.readouterr().err
    for change in ("mesh.data: 1 -> 2", "batch.micro_batches: 1 -> 2", "intervals.checkpoint_steps: 50 -> 3", "remat"):
        assert f"train: goes on with a change: {change}" in said or f"compute.{change}: " in said, said


def test_what_changes_the_meaning_is_listed_whole_and_refused_unless_named(
    config: TrainConfig, saved: dict[str, Any], capsys
) -> None:
    changed = dataclasses.replace(config, seed=7, steps=20, optimizer=OptimizerConfig(learning_rate=0.5))
    with pytest.raises(ChangedRunError) as raised:
        require_same_run(saved, changed)
    for line in ("seed: 0 -> 7", "steps: 10 -> 20", "optimizer.learning_rate: ", "the state of step 4"):
        assert line in str(raised.value)
    assert "--allow-change optimizer.learning_rate seed steps" in str(raised.value)
    with pytest.raises(ChangedRunError, match="--allow-change seed;") as raised:
        require_same_run(saved, changed, ("optimizer", "steps"))
    assert "learning_rate" not in str(raised.value)
    require_same_run(saved, changed, ("optimizer", "steps", "seed"))
    assert "seed: 0 -> 7 (allowed)" in capsys.readouterr().err


def test_other_inputs_are_another_run_and_moved_ones_are_not(
    config: TrainConfig, saved: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(config.dataset)
    require_same_run(saved, dataclasses.replace(config, dataset=tmp_path / "moved"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    with pytest.raises(ChangedRunError, match=r"dataset: \"contents \w+\" -> \"contents \w+\""):
        require_same_run(saved, dataclasses.replace(config, dataset=tmp_path / "other"))


def test_another_version_of_the_code_passes_with_a_word(config: TrainConfig, saved: dict[str, Any], capsys) -> None:
    saved["code"]["jax"] = "0.1.0"
    require_same_run(saved, config)
    assert "goes on with a change: jax: 0.1.0 -> " in capsys.readouterr().err


def test_without_a_state_nothing_continues_and_with_one_it_depends(config: TrainConfig, saved: dict[str, Any]) -> None:
    assert not continues(config)
    state = record.epath.Path(config.out / "state" / "4")
    state.mkdir(parents=True)
    record.complete(state, {"metrics": {}, "saved_at": 0.0, "processes": 1, **saved})
    assert continues(config)
    with pytest.raises(ChangedRunError, match="seed: 0 -> 7"):
        continues(dataclasses.replace(config, seed=7))
    assert continues(dataclasses.replace(config, seed=7), ("seed",))
