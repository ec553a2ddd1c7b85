"""One optimizer step and one evaluation batch, compiled for a mesh.

The loss is normalised once, by the number of loss-bearing targets of the whole step: gradients of loss *sums* are added
up over micro-batches and devices. The mean of micro-batch means would weigh short answers more than long ones.

A step whose loss or gradients are not finite changes nothing but the count of steps: the devices decide that by
themselves, from the loss and the gradients of all, and the host learns of it later.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.decoder import head_kernel, hidden_states
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import Params
from jaxwiz.sharding.context import to_context_order
from jaxwiz.sharding.rules import RULES, batch_sharding, replicated
from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.loss import CROSS_ENTROPY, LossSums, Objective, next_token_loss, shift_targets
from jaxwiz.train.optimizer import updates_done
from jaxwiz.train.state import FrozenBase, TrainState, lora_keys

# "tokens", "loss_mask", "segment_ids", "positions": int32 arrays [B, T], or their shapes.
DeviceBatch = dict[str, Any]
Metrics = dict[str, jax.Array]


class StepLoss(NamedTuple):
    """What a batch's loss came to.

    Attributes:
      objective: mean of what is minimised, float32, nats a target.
      cross_entropy: mean cross entropy alone, comparable between objectives.
      z_loss: mean weighted z-loss.
      targets: how many bear loss, int32.
    """

    objective: jax.Array
    cross_entropy: jax.Array
    z_loss: jax.Array
    targets: jax.Array


def loss_sums(
    params: Params,
    batch: DeviceBatch,
    model: ModelConfig,
    compute: ComputeConfig,
    mesh: Mesh | None = None,
    base: FrozenBase | None = None,
    objective: Objective = CROSS_ENTROPY,
) -> tuple[jax.Array, LossSums]:
    """Returns the objective summed over a batch's loss-bearing targets (float32, nats), and what it is made of.

    Args:
      params: parameters as `model/params.py` lays them out; the adapters, where there is a `base`.
      batch: "tokens", "loss_mask", "segment_ids" and "positions", each [B, T].
      model: the model's shape.
      compute: numerics and memory.
      mesh: the devices; None: one.
      base: what adapters stand beside; None: `params` are the whole model.
      objective: what is summed up.
    """
    weights, adapters = (params, None) if base is None else base.with_adapters(params)
    shape = AttentionShape.of(model, batch["tokens"].shape[1], compute.dtype)
    tokens, segment_ids, positions, targets, bears_loss = _on_context(batch, mesh)
    hidden = hidden_states(
        weights,
        model,
        tokens,
        positions,
        segment_ids,
        compute_dtype=jnp.dtype(compute.dtype),
        attend=choose_attention(compute.attention, shape, mesh).run,
        remat=compute.remat,
        scan_layers=compute.scan_layers,
        adapters=adapters,
        mesh=mesh,
    )
    head = head_kernel(weights, model)
    return next_token_loss(hidden, head, targets, bears_loss, compute.loss_chunk_positions, mesh, objective)


def loss_and_gradient(
    params: Params,
    batch: DeviceBatch,
    model: ModelConfig,
    compute: ComputeConfig,
    micro_batches: int = 1,
    mesh: Mesh | None = None,
    base: FrozenBase | None = None,
    objective: Objective = CROSS_ENTROPY,
) -> tuple[StepLoss, Params]:
    """Returns the mean losses of a batch and the gradient of the mean objective.

    Args:
      params: see `loss_sums`.
      batch: [B, T] arrays; B is a multiple of `micro_batches`.
      model: the model's shape.
      compute: numerics and memory.
      micro_batches: parts that are computed one after another; the result is that of one big batch.
      mesh: see `loss_sums`.
      base: likewise; its key is that of the step.
      objective: likewise.
    """
    value_and_gradient = jax.value_and_grad(
        functools.partial(loss_sums, model=model, compute=compute, mesh=mesh, objective=objective), has_aux=True
    )
    if micro_batches == 1:
        (total, sums), gradient = value_and_gradient(params, batch, base=base)
    else:

        def add(sums: tuple[Any, ...], part: tuple[jax.Array, DeviceBatch]) -> tuple[tuple[Any, ...], None]:
            number, micro_batch = part
            part_base = base and base.of_micro_batch(number)
            return jax.tree.map(jnp.add, sums, value_and_gradient(params, micro_batch, base=part_base)), None

        zero = jnp.zeros((), jnp.float32)
        empty = ((zero, LossSums(zero, zero, jnp.zeros((), jnp.int32))), jax.tree.map(jnp.zeros_like, params))
        split = jax.tree.map(lambda array: _every_nth_row(array, micro_batches), batch)
        ((total, sums), gradient), _ = jax.lax.scan(add, empty, (jnp.arange(micro_batches), split))
    per_target = 1.0 / jnp.maximum(sums.targets, 1).astype(jnp.float32)
    means = StepLoss(total * per_target, sums.cross_entropy * per_target, sums.z_loss * per_target, sums.targets)
    return means, jax.tree.map(lambda leaf: leaf * per_target, gradient)


def make_train_step(
    model: ModelConfig,
    compute: ComputeConfig,
    micro_batches: int,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    shardings: TrainState,
    mesh: Mesh,
    lora: LoraConfig | None = None,
    seed: int = 0,
    objective: Objective = CROSS_ENTROPY,
) -> jax.stages.Wrapped:
    """Returns the compiled step (state, batch) -> (state, metrics); the state given to it is consumed.

    Args:
      model: the model's shape.
      compute: numerics and memory.
      micro_batches: parts of a step's batch.
      optimizer: from `make_optimizer`.
      schedule: its learning rate, for the metrics.
      shardings: from `state_shardings`.
      mesh: the device mesh.
      lora: adapters that are trained instead of the model's parameters; None: all parameters are.
      seed: of the adapters' dropout.
      objective: what is minimised.

    Returns:
      A function whose metrics are device scalars: "loss" (cross entropy, nats a target), "grad_norm" (before clipping),
      "learning_rate", "loss_tokens", "skipped" (whether loss or gradients are not finite: parameters, moments and the
      schedule are then as before); where more than cross entropy is minimised, "objective" and "z_loss" too.
    """

    def step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(lora_keys(seed).dropout, state.step)
        base = None if lora is None else FrozenBase(state.frozen, lora, key)
        loss, gradient = loss_and_gradient(state.params, batch, model, compute, micro_batches, mesh, base, objective)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            grad_norm = optax.tree.norm(gradient)
            finite = jnp.isfinite(loss.objective) & jnp.isfinite(grad_norm)
            # A choice for each element costs nothing: it is made where the element is written.
            params, opt_state = jax.tree.map(
                functools.partial(jnp.where, finite), (params, opt_state), (state.params, state.opt_state)
            )
        metrics = {
            "loss": loss.cross_entropy,
            "grad_norm": grad_norm,
            "learning_rate": jnp.asarray(schedule(updates_done(state.opt_state)), jnp.float32),
            "loss_tokens": loss.targets,
            "skipped": ~finite,
        }
        if objective.z_loss or objective.label_smoothing:
            metrics |= {"objective": loss.objective, "z_loss": loss.z_loss}
        return TrainState(state.step + 1, params, opt_state, state.frozen), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(
    model: ModelConfig,
    compute: ComputeConfig,
    shardings: TrainState,
    mesh: Mesh,
    lora: LoraConfig | None = None,
    objective: Objective = CROSS_ENTROPY,
) -> jax.stages.Wrapped:
    """Returns the compiled (params, frozen, batch) -> (sum of cross entropies, number of targets), device scalars.

    Args:
      model: the model's shape.
      compute: numerics and memory.
      shardings: of the state; `params` and `frozen` are its attributes of these names.
      mesh: the device mesh.
      lora: see `make_train_step`.
      objective: which columns of the head are tokens; its other parts are no part of what is measured.
    """

    def evaluate(params: Params, frozen: Params, batch: DeviceBatch) -> tuple[jax.Array, jax.Array]:
        base = None if lora is None else FrozenBase(frozen, lora)
        _, sums = loss_sums(params, batch, model, compute, mesh, base, objective)
        return sums.cross_entropy, sums.targets

    return jax.jit(
        evaluate,
        in_shardings=(shardings.params, shardings.frozen, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )


def _on_context(batch: DeviceBatch, mesh: Mesh | None) -> tuple[jax.Array, ...]:
    """Returns tokens, segment ids, positions, targets and what bears loss, each [B, T], as the layers take them.

    Where positions are split over the mesh, targets are taken from whole rows, so that the token after a device's last
    one is the next device's first; then all go into context order. Rows of integers cost next to nothing to send.
    """
    if mesh is not None:
        whole_rows = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
        batch = jax.lax.with_sharding_constraint(batch, whole_rows)
    targets, bears_loss = shift_targets(batch["tokens"], batch["loss_mask"], batch["segment_ids"])
    rows = (batch["tokens"], batch["segment_ids"], batch["positions"], targets, bears_loss)
    if mesh is None:
        return rows
    split = tuple(to_context_order(row, mesh.shape["context"]) for row in rows)
    return jax.lax.with_sharding_constraint(split, batch_sharding(mesh))


def _every_nth_row(array: jax.Array, parts: int) -> jax.Array:
    """Returns [B, T] as [parts, B / parts, T], part p holding rows p, p + parts, ...: so no row changes its device."""
    return array.reshape(-1, parts, array.shape[1]).swapaxes(0, 1)
