"""Everything a training run needs before its first step: model shape, mesh, data, optimizer, compiled steps.

Steps are compiled ahead of the loop, so that a program which does not fit fails before any work is done, and so that
compilation is in nobody's step time.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxwiz.checkpoint.train_state import abstract_like
from jaxwiz.checkpoint.weights import load_model_config
from jaxwiz.data.feed import Batch, Feed
from jaxwiz.files import UserError
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.remat import require_offload_memory
from jaxwiz.sharding.mesh import make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.dataset import Manifest, read_manifest, require_matching_checkpoint
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
      manifest: what the dataset says of itself.
      mesh: the devices.
      steps: optimizer steps in all.
      optimizer: AdamW.
      schedule: its learning rate.
      shardings: how the state lies on the mesh.
      train_feed: the batch of each step.
      heldout_feed: the held-out rows in stored order, `eval_rows` a batch, or None if there is no such split.
    """

    config: TrainConfig
    model: LlamaConfig
    manifest: Manifest
    mesh: Mesh
    steps: int
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
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
        )
        return step.lower(self.abstract_state(), self._abstract_batch(self.config.batch.rows)).compile()

    def compiled_eval_step(self) -> jax.stages.Compiled:
        """Returns the compiled (params, frozen, batch) -> (loss sum, count) of `eval_rows` rows: `make_eval_step`."""
        step = make_eval_step(self.model, self.config.compute, self.shardings, self.mesh, self.config.lora)
        state, batch = self.abstract_state(), self._abstract_batch(eval_rows(self.config))
        return step.lower(state.params, state.frozen, batch).compile()

    def to_devices(self, batch: Batch) -> DeviceBatch:
        """Returns a batch's arrays, int32 [B, T], with its rows spread over the mesh; does not wait for the copy."""
        sharding = batch_sharding(self.mesh)

        def place(array: np.ndarray) -> jax.Array:
            array = array.astype(np.int32)
            return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

        return {field.name: place(getattr(batch, field.name)) for field in dataclasses.fields(Batch)}

    def train_batch(self, step: int) -> Batch:
        """Returns the batch of the step that follows `step` steps.

        Raises:
          TrainError: a token id is not in the model's vocabulary.
        """
        batch = self.train_feed.batch(step)
        self._require_known_tokens(batch, f"train batch of step {step + 1}")
        return batch

    def heldout_batches(self) -> Iterator[Batch]:
        """Yields the held-out rows in stored order, `eval_rows` at a time, the last batch filled up with empty rows.

        Raises:
          TrainError: a token id is not in the model's vocabulary.
        """
        feed = self.heldout_feed
        if feed is None:
            return
        for number in range(feed.steps_per_epoch):
            batch = feed.batch(number)
            self._require_known_tokens(batch, f"held-out batch {number}")
            yield batch

    def _abstract_batch(self, rows: int) -> DeviceBatch:
        shape = jax.ShapeDtypeStruct(
            (rows, self.manifest.sequence_length), jnp.int32, sharding=batch_sharding(self.mesh)
        )
        return {field.name: shape for field in dataclasses.fields(Batch)}

    def _require_known_tokens(self, batch: Batch, where: str) -> None:
        lowest, highest = int(batch.tokens.min()), int(batch.tokens.max())
        if lowest < 0 or highest >= self.model.vocab_size:
            raise TrainError(
                f"{self.config.dataset}: {where} holds token id {lowest if lowest < 0 else highest}, but the model has "
                f"{self.model.vocab_size} tokens; build the dataset with the checkpoint's own tokenizer"
            )


def make_job(config: TrainConfig) -> TrainJob:
    """Returns the run that `config` asks for, its data opened and its layout decided.

    Raises:
      UserError: dataset, checkpoint and mesh do not fit together.
    """
    model = load_model_config(config.checkpoint)
    manifest = read_manifest(config.dataset)
    require_matching_checkpoint(config.dataset, manifest, config.checkpoint)
    mesh = make_mesh(config.mesh)
    require_rows_divide(config, dict(mesh.shape))
    require_offload_memory(config.compute.remat, mesh.local_devices[0])
    train_feed = Feed(config.dataset / "dataset", "train", config.batch.rows, config.seed)
    steps = total_steps(config, manifest.rows["train"])
    optimizer = make_optimizer(config.optimizer, steps, trained_specs(model, config.lora))
    heldout_feed = None
    if manifest.rows.get("heldout"):
        heldout_feed = Feed(config.dataset / "dataset", "heldout", eval_rows(config), config.seed, shuffle=False)
    return TrainJob(
        config=config,
        model=model,
        manifest=manifest,
        mesh=mesh,
        steps=steps,
        optimizer=optimizer,
        schedule=learning_rate_schedule(config.optimizer, steps),
        shardings=state_shardings(model, optimizer, mesh, config.lora),
        train_feed=train_feed,
        heldout_feed=heldout_feed,
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
    parts = config.batch.micro_batches * mesh_sizes["data"] * mesh_sizes["fsdp"]
    if config.batch.rows % parts:
        raise TrainError(
            f"batch.rows = {config.batch.rows}: must be a multiple of micro_batches x data x fsdp = "
            f"{config.batch.micro_batches} x {mesh_sizes['data']} x {mesh_sizes['fsdp']} = {parts}; "
            f"use {-(-config.batch.rows // parts) * parts}, or change micro_batches or the mesh"
        )
