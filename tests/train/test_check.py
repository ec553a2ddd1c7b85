"""`jaxwiz check` and the start of a run find what does not fit together, and say what to do."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import load_weights, save_weights, tokenizer_folder
from jaxwiz.config import ConfigError, parse_config
from jaxwiz.files import UserError
from jaxwiz.model.gpt_bigcode_config import GPTBigCodeConfig
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import init_params
from jaxwiz.sharding.mesh import MeshConfig
from jaxwiz.train.config import BatchConfig, ComputeConfig, OptimizerConfig, TrainConfig
from jaxwiz.train.job import make_job, require_rows_divide
from jaxwiz.train.memory import step_memory_bytes
from jaxwiz.train.run import check
from tests.train.tiny import MODEL


@pytest.fixture
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(out=tmp_path / "out", dataset=tiny_dataset, checkpoint=tiny_checkpoint, epochs=2)


def errors(config: TrainConfig) -> list[str]:
    return [finding.message for finding in check(config) if finding.level == "error"]


def test_a_sound_config_has_no_errors_and_tells_length_memory_and_disk(config: TrainConfig) -> None:
    findings = check(config)
    assert {finding.level for finding in findings} == {"ok"}
    text = "\n".join(finding.message for finding in findings)
    assert "2.00 epochs" in text and "memory" in text and "disk" in text
    assert not config.out.exists()


def test_gpt_bigcode_is_trained_whole_and_adapters_of_it_are_an_error(config: TrainConfig, tmp_path: Path) -> None:
    model = GPTBigCodeConfig(
        vocab_size=MODEL.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, max_positions=256
    )
    params = init_params(model, jax.random.key(0))
    save_weights(tmp_path / "starcoder", params, model, tokenizer_folder(config.checkpoint), {"source": "test"})
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "starcoder"), params)
    whole = dataclasses.replace(config, checkpoint=tmp_path / "starcoder")
    assert errors(whole) == []
    (error,) = errors(dataclasses.replace(whole, lora=LoraConfig()))
    assert "lora: not for models of kind 'gpt_bigcode'" in error


def test_another_tokenizer_is_an_error_before_and_at_the_run(config: TrainConfig, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_folder(config.checkpoint), tokenizer)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 1}))
    save_weights(tmp_path / "other", load_weights(config.checkpoint), MODEL, tokenizer, {})
    other = dataclasses.replace(config, checkpoint=tmp_path / "other")
    assert any("tokenizer" in error and "run the data stage" in error for error in errors(other))
    with pytest.raises(UserError, match="tokenizer"):
        make_job(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_length": 128}, "different runs"),
        ({"schema": "jaxwiz.data_manifest.v0"}, "schema"),
        ({"splits": {}}, "different runs"),
        ({"tokenizer": None}, "damaged"),
    ],
)
def test_a_manifest_that_does_not_match_is_an_error(
    config: TrainConfig, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    dataset = tmp_path / "copy"
    shutil.copytree(config.dataset, dataset)
    manifest = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps({**manifest, **change}))
    assert any(message in error for error in errors(dataclasses.replace(config, dataset=dataset)))


def test_rows_must_divide_among_micro_batches_and_devices(config: TrainConfig) -> None:
    uneven = dataclasses.replace(config, batch=BatchConfig(rows=12, micro_batches=3))
    with pytest.raises(UserError, match=r"rows = 12.*3 x 1 x 2 x 4 = 24; use 24"):
        require_rows_divide(uneven, {"slice": 1, "data": 2, "fsdp": 4, "context": 1, "tensor": 1})


def test_a_mesh_of_absent_devices_and_a_warmup_without_end_are_reported(config: TrainConfig) -> None:
    assert any("devices" in error for error in errors(dataclasses.replace(config, mesh=MeshConfig(fsdp=3))))
    slow = dataclasses.replace(config, optimizer=OptimizerConfig(warmup_steps=999))
    assert any("warmup_steps" in finding.message for finding in check(slow) if finding.level == "warning")


def test_config_faults_name_the_key(config: TrainConfig) -> None:
    paths = {"out": "o", "dataset": "d", "checkpoint": "c"}
    with pytest.raises(ConfigError, match="exactly one"):
        parse_config({**paths, "steps": 1, "epochs": 1}, TrainConfig, "x.yaml")
    with pytest.raises(ConfigError, match="micro_batches = 3"):
        parse_config({**paths, "steps": 1, "batch": {"rows": 4, "micro_batches": 3}}, TrainConfig, "x.yaml")


def test_the_memory_estimate_is_near_what_the_compiler_needs(config: TrainConfig) -> None:
    large = dataclasses.replace(config, batch=BatchConfig(rows=32), compute=ComputeConfig(loss_chunk_positions=64))
    for remat in ("none", "dots", "save_attention", "full"):
        chosen = dataclasses.replace(large, compute=dataclasses.replace(large.compute, remat=remat))
        analysis = make_job(chosen).compiled_train_step().memory_analysis()
        needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
        estimate = sum(step_memory_bytes(MODEL, chosen, 256, MeshConfig().sizes(1)).values())
        assert needed / 2 < estimate < needed * 2, (remat, estimate, needed)
    assert jax.device_count() == 1
