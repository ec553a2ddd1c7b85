"""One optimizer step and one evaluation batch, compiled for a mesh.

The loss is normalised once, by the number of loss-bearing targets of the whole step: gradients of loss *sums* are added
up over micro-batches and devices. The mean of micro-batch means would weigh short answers more than long ones.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.llama import head_kernel, hidden_states
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.params import Params
from jaxwiz.sharding.rules import batch_sharding, replicated
from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.loss import next_token_loss, shift_targets
from jaxwiz.train.state import FrozenBase, TrainState, lora_keys

# "tokens", "loss_mask", "segment_ids", "positions": int32 arrays [B, T], or their shapes.
DeviceBatch = dict[str, Any]
Metrics = dict[str, jax.Array]


def loss_sum_and_count(
    params: Params,
    batch: DeviceBatch,
    model: LlamaConfig,
    compute: ComputeConfig,
    mesh: Mesh | None = None,
    base: FrozenBase | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss summed over a batch's loss-bearing targets (float32, nats), and their number (int32).

    Args:
      params: parameters as `model/params.py` lays them out; the adapters, where there is a `base`.
      batch: "tokens", "loss_mask", "segment_ids" and "positions", each [B, T].
      model: the model's shape.
      compute: numerics and memory.
      mesh: the devices, for kernels that have to be split over them by hand; None: one device.
      base: what adapters stand beside; None: `params` are the whole model.
    """
    weights, adapters = (params, None) if base is None else base.with_adapters(params)
    shape = AttentionShape.of(model, batch["tokens"].shape[1], compute.dtype)
    hidden = hidden_states(
        weights,
        model,
        batch["tokens"],
        batch["positions"],
        batch["segment_ids"],
        compute_dtype=jnp.dtype(compute.dtype),
        attend=choose_attention(compute.attention, shape, mesh).run,
        remat=compute.remat,
        scan_layers=compute.scan_layers,
        adapters=adapters,
    )
    targets, bears_loss = shift_targets(batch["tokens"], batch["loss_mask"], batch["segment_ids"])
    return next_token_loss(hidden, head_kernel(weights, model), targets, bears_loss, compute.loss_chunk_positions, mesh)


def loss_and_gradient(
    params: Params,
    batch: DeviceBatch,
    model: LlamaConfig,
    compute: ComputeConfig,
    micro_batches: int = 1,
    mesh: Mesh | None = None,
    base: FrozenBase | None = None,
) -> tuple[jax.Array, jax.Array, Params]:
    """Returns (mean loss, number of loss-bearing targets, gradient of the mean) of a batch.

    Args:
      params: see `loss_sum_and_count`.
      batch: [B, T] arrays; B is a multiple of `micro_batches`.
      model: the model's shape.
      compute: numerics and memory.
      micro_batches: parts that are computed one after another; the result is that of one big batch.
      mesh: see `loss_sum_and_count`.
      base: likewise; its key is that of the step.
    """
    value_and_gradient = jax.value_and_grad(
        functools.partial(loss_sum_and_count, model=model, compute=compute, mesh=mesh), has_aux=True
    )
    if micro_batches == 1:
        (loss_sum, count), gradient = value_and_gradient(params, batch, base=base)
    else:

        def add(sums: tuple[Any, ...], part: tuple[jax.Array, DeviceBatch]) -> tuple[tuple[Any, ...], None]:
            number, micro_batch = part
            part_base = base and base.of_micro_batch(number)
            (loss_sum, count), gradient = value_and_gradient(params, micro_batch, base=part_base)
            return jax.tree.map(jnp.add, sums, (loss_sum, count, gradient)), None

        empty = (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))
        split = jax.tree.map(lambda array: _every_nth_row(array, micro_batches), batch)
        (loss_sum, count, gradient), _ = jax.lax.scan(add, empty, (jnp.arange(micro_batches), split))
    per_target = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)
    return loss_sum * per_target, count, jax.tree.map(lambda leaf: leaf * per_target, gradient)


def make_train_step(
    model: LlamaConfig,
    compute: ComputeConfig,
    micro_batches: int,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    shardings: TrainState,
    mesh: Mesh,
    lora: LoraConfig | None = None,
    seed: int = 0,
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

    Returns:
      A function whose metrics are device scalars: "loss" (nats a target), "grad_norm" (before clipping),
      "learning_rate", "loss_tokens".
    """

    def step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(lora_keys(seed).dropout, state.step)
        base = None if lora is None else FrozenBase(state.frozen, lora, key)
        loss, count, gradient = loss_and_gradient(state.params, batch, model, compute, micro_batches, mesh, base)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "loss_tokens": count,
        }
        return TrainState(state.step + 1, params, opt_state, state.frozen), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(
    model: LlamaConfig, compute: ComputeConfig, shardings: TrainState, mesh: Mesh, lora: LoraConfig | None = None
) -> jax.stages.Wrapped:
    """Returns the compiled (params, frozen, batch) -> (loss sum, number of loss-bearing targets), device scalars.

    Args:
      model: the model's shape.
      compute: numerics and memory.
      shardings: of the state; `params` and `frozen` are its attributes of these names.
      mesh: the device mesh.
      lora: see `make_train_step`.
    """

    def evaluate(params: Params, frozen: Params, batch: DeviceBatch) -> tuple[jax.Array, jax.Array]:
        base = None if lora is None else FrozenBase(frozen, lora)
        return loss_sum_and_count(params, batch, model, compute, mesh, base)

    return jax.jit(
        evaluate,
        in_shardings=(shardings.params, shardings.frozen, batch_sharding(mesh)),
        out_shardings=replicated(mesh),
    )


def _every_nth_row(array: jax.Array, parts: int) -> jax.Array:
    """Returns [B, T] as [parts, B / parts, T], part p holding rows p, p + parts, ...: so no row changes its device."""
    return array.reshape(-1, parts, array.shape[1]).swapaxes(0, 1)
