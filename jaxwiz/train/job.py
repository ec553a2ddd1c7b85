"""Everything a training run needs before its first step: model shape, mesh, data, optimizer, compiled steps.

Steps are compiled ahead of the loop, so that a program which does not fit fails before any work is done, and so that
compilation is in nobody's step time.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxwiz.checkpoint.train_state import abstract_like
from jaxwiz.checkpoint.weights import load_model_config, read_header
from jaxwiz.data.feed import Batch, Feed
from jaxwiz.files import UserError
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.remat import require_offload_memory
from jaxwiz.sharding.mesh import make_mesh
from jaxwiz.sharding.rules import RULES, batch_sharding, batch_shards
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.dataset import (
    Manifest,
    OnCorrupt,
    open_heldout_feed,
    open_train_feed,
    read_manifests,
    require_matching_checkpoint,
)
from jaxwiz.train.feeding import device_batches
from jaxwiz.train.loss import Objective
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import TrainState, abstract_state, state_shardings, trained_specs
from jaxwiz.train.step import DeviceBatch, make_eval_step, make_train_step


class TrainError(UserError):
    """A run that cannot start or go on; the message names what, where and the remedy."""


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """A run, ready to step. Made by `make_job`.

    Attributes:
      config: what was asked for.
      model: the model's shape.
      manifest: what the datasets say of themselves, together.
      mesh: the devices.
      steps: optimizer steps in all.
      optimizer: put together by `make_optimizer`.
      schedule: its learning rate.
      objective: what is minimised.
      shardings: how the state lies on the mesh.
      train_feed: the batch of each step.
      heldout_feed: the held-out rows in stored order, `eval_rows` a batch, or None if there is no such split.
    """

    config: TrainConfig
    model: ModelConfig
    manifest: Manifest
    mesh: Mesh
    steps: int
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    objective: Objective
    shardings: TrainState
    train_feed: Feed
    heldout_feed: Feed | None

    def abstract_state(self) -> TrainState:
        """Returns the state as `jax.ShapeDtypeStruct`s with their shardings."""
        frozen_dtype = jnp.dtype(self.config.compute.dtype)
        return abstract_like(abstract_state(self.model, self.optimizer, self.config.lora, frozen_dtype), self.shardings)

    def compiled_train_step(self) -> jax.stages.Compiled:
        """Returns the compiled (state, batch) -> (state, metrics) for this job's shapes; see `make_train_step`."""
        step = make_train_step(
            self.model,
            self.config.compute,
            self.config.batch.micro_batches,
            self.optimizer,
            self.schedule,
            self.shardings,
            self.mesh,
            self.config.lora,
            self.config.seed,
            self.objective,
        )
        return step.lower(self.abstract_state(), self._abstract_batch(self.config.batch.rows)).compile()

    def compiled_eval_step(self) -> jax.stages.Compiled:
        """Returns the compiled (params, frozen, batch) -> (loss sum, count) of `eval_rows` rows: `make_eval_step`."""
        step = make_eval_step(
            self.model, self.config.compute, self.shardings, self.mesh, self.config.lora, self.objective
        )
        state, batch = self.abstract_state(), self._abstract_batch(eval_rows(self.config))
        return step.lower(state.params, state.frozen, batch).compile()

    def train_batches(self, step: int) -> AbstractContextManager[Iterator[DeviceBatch]]:
        """Returns the context whose iterator gives the batches of all steps that follow `step` steps."""
        return device_batches(self.train_feed, batch_sharding(self.mesh), step, self.steps, self._known_tokens)

    def heldout_batches(self) -> AbstractContextManager[Iterator[DeviceBatch]]:
        """Returns the context whose iterator gives the held-out rows in stored order, `eval_rows` at a time.

        The last batch is filled up with empty rows. There must be a `heldout_feed`.
        """
        assert self.heldout_feed is not None
        sharding, batches = batch_sharding(self.mesh), self.heldout_feed.steps_per_epoch
        return device_batches(self.heldout_feed, sharding, 0, batches, self._known_tokens)

    @property
    def _known_tokens(self) -> int:
        """How many token ids there are, without rows that only pad the vocabulary."""
        return self.objective.vocab_size or self.model.vocab_size

    def _abstract_batch(self, rows: int) -> DeviceBatch:
        shape = jax.ShapeDtypeStruct(
            (rows, self.manifest.sequence_length), jnp.int32, sharding=batch_sharding(self.mesh)
        )
        return {field.name: shape for field in dataclasses.fields(Batch)}


def make_job(config: TrainConfig, on_corrupt: OnCorrupt | None = None) -> TrainJob:
    """Returns the run that `config` asks for, its data opened and its layout decided.

    Args:
      config: of the run.
      on_corrupt: what is told of rows that are left out; None: such a row ends the run.

    Raises:
      UserError: dataset, checkpoint and mesh do not fit together.
    """
    model = load_model_config(config.checkpoint)
    manifest = read_manifests(config)
    require_matching_checkpoint(config.dataset, manifest, config.checkpoint)
    mesh = make_mesh(config.mesh)
    require_rows_divide(config, dict(mesh.shape))
    require_offload_memory(config.compute.remat, mesh.local_devices[0])
    steps = total_steps(config, manifest.rows["train"])
    optimizer = make_optimizer(config.optimizer, steps, trained_specs(model, config.lora))
    return TrainJob(
        config=config,
        model=model,
        manifest=manifest,
        mesh=mesh,
        steps=steps,
        optimizer=optimizer,
        schedule=learning_rate_schedule(config.optimizer, steps),
        objective=Objective(
            config.loss.z_loss, config.loss.label_smoothing, read_header(config.checkpoint).unpadded_vocab_size
        ),
        shardings=state_shardings(model, optimizer, mesh, config.lora),
        train_feed=open_train_feed(config, on_corrupt),
        heldout_feed=open_heldout_feed(config, eval_rows(config), on_corrupt),
    )


def total_steps(config: TrainConfig, train_rows: int) -> int:
    """Returns how many optimizer steps a config asks for on `train_rows` packed rows."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None  # the config holds exactly one of the two
    return max(1, round(config.epochs * math.ceil(train_rows / config.batch.rows)))


def eval_rows(config: TrainConfig) -> int:
    """Returns the rows of a held-out batch: those of a micro-batch, so that it needs less memory than a step."""
    return config.batch.rows // config.batch.micro_batches


def require_rows_divide(config: TrainConfig, mesh_sizes: dict[str, int]) -> None:
    """Checks that every device gets the same number of whole rows in each micro-batch.

    Raises:
      TrainError: names rows, micro-batches and devices.
    """
    shards = batch_shards(mesh_sizes)
    parts = config.batch.micro_batches * shards
    if config.batch.rows % parts:
        raise TrainError(
            f"batch.rows = {config.batch.rows}: must be a multiple of micro_batches x {' x '.join(RULES['batch'])} = "
            f"{config.batch.micro_batches} x {' x '.join(str(mesh_sizes[axis]) for axis in RULES['batch'])} = {parts}; "
            f"use {-(-config.batch.rows // parts) * parts}, or change micro_batches or the mesh"
        )
