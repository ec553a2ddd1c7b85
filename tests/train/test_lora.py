"""Training adapters: they alone change and are saved, runs resume bit for bit, 8 devices do what one does."""

import dataclasses
import json
import re
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxwiz.checkpoint.adapter import load_adapter
from jaxwiz.checkpoint.weights import load_weights, read_header
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import count_lora, init_lora, merge_lora
from jaxwiz.model.params import count_params
from jaxwiz.sharding.mesh import AXES, MeshConfig, make_mesh
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, OptimizerConfig, TrainConfig
from jaxwiz.train.job import make_job
from jaxwiz.train.memory import step_memory_bytes
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.optimizer import make_optimizer
from jaxwiz.train.state import FrozenBase, abstract_state, state_shardings, trained_specs
from jaxwiz.train.step import loss_and_gradient, make_train_step
from tests.faults.lives import live
from tests.train.tiny import MODEL, packed_row, random_examples, random_params, stack

LORA = LoraConfig(rank=4, alpha=16.0, targets=("q", "v", "o", "down"), dropout=0.1)


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return TrainConfig(
        out=tmp_path_factory.mktemp("lora") / "whole",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=1),
        batch=BatchConfig(rows=8, micro_batches=2),
        compute=ComputeConfig(loss_chunk_positions=64),
        lora=LORA,
        steps=4,
        seed=3,
        intervals=IntervalsConfig(checkpoint_steps=2),
    )


@pytest.fixture(scope="module")
def finished(config: TrainConfig) -> Path:
    """The folder of an uninterrupted run."""
    return train_stage.run(config)


def test_adapters_learn_and_the_result_is_base_plus_adapters(config: TrainConfig, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["heldout_loss_after"] < summary["heldout_loss_before"] - 0.02
    assert summary["trained_parameters"] == count_lora(MODEL, LORA) < count_params(MODEL) == summary["parameters"]
    assert f"{count_lora(MODEL, LORA):,} more in adapters" in (finished / "summary.txt").read_text()
    stored = load_adapter(finished / "adapter", MODEL)
    assert stored.config == LORA
    assert stored.base["path"] == str(config.checkpoint)
    assert stored.base["provenance"] == read_header(config.checkpoint).provenance
    base, merged = load_weights(config.checkpoint), load_weights(finished / "model")
    jax.tree.map(np.testing.assert_array_equal, merged, merge_lora(base, stored.params, LORA))
    for changed, path in ((True, ("attn", "o")), (False, ("attn", "k")), (False, ("mlp", "gate"))):
        before, after = (tree["layers"][path[0]][path[1]]["kernel"] for tree in (base, merged))
        assert np.array_equal(before, after) != changed


def test_only_adapters_have_gradients_moments_and_a_place_in_saved_states(config: TrainConfig) -> None:
    job = make_job(config)
    state = job.abstract_state()
    adapters = jax.tree.map(lambda leaf: leaf.shape, state.params)
    assert adapters == jax.tree.map(lambda leaf: leaf.shape, init_lora(MODEL, LORA, jax.random.key(0)))
    # Two moments and a count or two.
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.shape)
    assert moments == 2 * count_lora(MODEL, LORA)
    assert state.to_save().frozen == {} and state.frozen.keys() == {"embed", "layers", "norm"}
    estimates = [
        step_memory_bytes(MODEL, dataclasses.replace(config, lora=lora), 256, dict.fromkeys(AXES, 1))
        for lora in (LORA, None)
    ]
    base_bytes = 4 * count_params(MODEL)
    assert estimates[0]["moments"] == 8 * count_lora(MODEL, LORA)
    assert estimates[0]["parameters"] == base_bytes + 4 * count_lora(MODEL, LORA)
    assert sum(estimates[0].values()) < sum(estimates[1].values())


def test_the_compiled_step_has_no_room_for_the_bases_gradients_and_moments() -> None:
    wide = dataclasses.replace(MODEL, hidden_size=256, intermediate_size=1024)
    mesh, schedule = make_mesh(MeshConfig()), optax.constant_schedule(1e-3)
    array = jax.ShapeDtypeStruct((2, 8), "int32")
    batch = dict.fromkeys(("tokens", "loss_mask", "segment_ids", "positions"), array)
    needs = []
    for lora in (LORA, None):
        optimizer = make_optimizer(OptimizerConfig(), 1, trained_specs(wide, lora))
        shardings = state_shardings(wide, optimizer, mesh, lora)
        step = make_train_step(wide, ComputeConfig(), 2, optimizer, schedule, shardings, mesh, lora)
        needs.append(step.lower(abstract_state(wide, optimizer, lora), batch).compile().memory_analysis())
    base_bytes = 4 * count_params(wide)
    # Two moments are gone from the arguments; the gradient and its sum over micro-batches from the temporaries.
    assert 1.9 * base_bytes < needs[1].argument_size_in_bytes - needs[0].argument_size_in_bytes < 2 * base_bytes
    assert needs[1].temp_size_in_bytes > 1.9 * base_bytes
    assert needs[0].temp_size_in_bytes < needs[1].temp_size_in_bytes - 1.5 * base_bytes


def test_a_frozen_base_in_bfloat16_takes_half_and_computes_the_same(config: TrainConfig) -> None:
    compute = ComputeConfig(dtype="bfloat16")
    frozen = make_job(dataclasses.replace(config, compute=compute)).abstract_state().frozen
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype(jnp.bfloat16)}
    batch = stack([packed_row(random_examples(3, [(20, 2)]), 24)])
    adapters = jax.tree.map(lambda leaf: leaf + 0.01, init_lora(MODEL, LORA, jax.random.key(0)))
    gradient_of = jax.jit(loss_and_gradient, static_argnums=(2, 3))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), random_params())
    results = [
        gradient_of(adapters, batch, MODEL, compute, base=FrozenBase(p, LORA)) for p in (random_params(), narrow)
    ]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), *results)


def test_micro_batches_equal_one_batch_and_each_has_its_own_dropout() -> None:
    batch = stack([packed_row(random_examples(seed, [(20, 2)]), 24) for seed in (1, 1)])  # twice the same row
    adapters = jax.tree.map(lambda leaf: leaf + 0.05, init_lora(MODEL, LORA, jax.random.key(0)))
    gradient_of = jax.jit(loss_and_gradient, static_argnums=(2, 3, 4))

    def loss(micro_batches: int, dropout: float, key: int) -> float:
        lora = dataclasses.replace(LORA, dropout=dropout)
        base = FrozenBase(random_params(), lora, jax.random.key(key))
        return float(gradient_of(adapters, batch, MODEL, ComputeConfig(), micro_batches, base=base)[0].objective)

    assert loss(2, 0.0, 1) == pytest.approx(loss(1, 0.0, 1), abs=1e-5)
    assert loss(2, 0.5, 1) == loss(2, 0.5, 1) != loss(2, 0.5, 2)
    one = stack([packed_row(random_examples(1, [(20, 2)]), 24)])
    first = FrozenBase(random_params(), dataclasses.replace(LORA, dropout=0.5), jax.random.key(1)).of_micro_batch(0)  # type: ignore[arg-type]
    alone, _ = gradient_of(adapters, one, MODEL, ComputeConfig(), 1, base=first)
    assert loss(2, 0.5, 1) != pytest.approx(float(alone.objective))


@pytest.mark.faults
def test_a_killed_run_ends_bit_for_bit_as_an_uninterrupted_one(config: TrainConfig, finished: Path) -> None:
    interrupted = dataclasses.replace(config, out=config.out.with_name("killed"))
    died = live(interrupted, "committed", 1, 0)
    assert died.returncode == -signal.SIGKILL, died.stderr
    last = live(interrupted)
    assert last.returncode == 0, last.stderr
    assert re.search("continues after step 2 of 4", last.stderr), last.stderr
    for name in ("metrics.jsonl", "adapter/adapter_model.safetensors"):
        assert (interrupted.out / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.faults
def test_eight_devices_give_the_losses_of_one_and_adapters_alone_can_be_kept(
    config: TrainConfig, finished: Path, tmp_path: Path
) -> None:
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    lora = dataclasses.replace(LORA, save="adapter")
    sharded = dataclasses.replace(config, out=tmp_path / "sharded", mesh=mesh, lora=lora)
    done = live(sharded, devices=8)
    assert done.returncode == 0, done.stderr
    lines, expected = (read_metrics(folder / "metrics.jsonl") for folder in (sharded.out, finished))
    for line, expected_line in zip(lines, expected, strict=True):
        assert line == pytest.approx(expected_line, abs=1e-4)
    found, wanted = (load_adapter(folder, MODEL) for folder in (sharded.out / "model", finished / "adapter"))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=5e-3), found.params, wanted.params)
    assert not (sharded.out / "adapter").exists()
