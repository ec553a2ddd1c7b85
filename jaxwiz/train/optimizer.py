"""The optimizer of a run, put together from optax parts: clipping, a direction, decay, the learning rate.

The direction is AdamW's, Adafactor's or Muon's; whichever it is, weight decay is decoupled (Loshchilov and Hutter,
arXiv 1711.05101) and spares norm scales and biases: pulling them to zero would switch channels off instead of
regularising.

Adafactor and Muon see layers as they are stored, stacked. Adafactor's root mean squares of a parameter are those of all
layers of its kind together. Muon orthogonalises each layer's matrix by itself.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxwiz.model.lora import LAYOUTS
from jaxwiz.train.config import Adafactor, AdamW, Muon, OptimizerConfig

# Muon's updates have this root mean square, about AdamW's own (Liu et al., arXiv 2502.16982, section 2.2).
_MUON_RMS = 0.2


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of how many steps were done before.

    Args:
      config: peak, shape and warm-up.
      steps: all steps of the run. The warm-up climbs from peak / warmup_steps, never from zero: no step is wasted.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    decay_steps = max(steps - warmup, 1)
    if config.schedule == "cosine":
        decay = optax.cosine_decay_schedule(peak, decay_steps, alpha=config.final_ratio)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(peak, peak * config.final_ratio, decay_steps)
    else:
        decay = optax.constant_schedule(peak)
    if warmup == 0:
        return decay
    climb = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([climb, decay], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int, specs: dict[str, Any]) -> optax.GradientTransformation:
    """Returns the optimizer of a run of `steps` steps.

    Args:
      config: algorithm and schedule.
      steps: all steps of the run.
      specs: parameter declarations; norm scales and biases are exempt from weight decay, as in transformers' Trainer.
    """
    decayed = _map_specs(lambda path, spec: "norm" not in spec.axes and path[-1] != "bias", specs)
    return optax.chain(
        optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm),
        _direction(config.algorithm, specs),
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate_schedule(config, steps)),
    )


def updates_done(opt_state: optax.OptState) -> jax.Array:
    """Returns how many updates a state of `make_optimizer` stands after, int32 []: steps but for those left out."""
    return opt_state[-1].count  # that of the learning rate, the last of the chain


def _direction(algorithm: AdamW | Adafactor | Muon, specs: dict[str, Any]) -> optax.GradientTransformation:
    if isinstance(algorithm, AdamW):
        return _adam(algorithm)
    if isinstance(algorithm, Adafactor):
        return _adafactor(algorithm)
    matrices = _map_specs(_matrix_axes, specs)
    kinds = jax.tree.map(lambda axes: "matrix" if axes else "other", matrices, is_leaf=_is_matrix_axes)
    return optax.partition({"matrix": _muon(algorithm, matrices), "other": _adam(algorithm.adamw)}, kinds)


def _adam(config: AdamW) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=jnp.dtype(config.moment_dtype))


def _adafactor(config: Adafactor) -> optax.GradientTransformation:
    """Returns Adafactor as `optax.adafactor` puts it together, but for rate and decay, which come after it here."""
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=config.decay_exponent),
        optax.identity() if config.max_update_rms is None else optax.clip_by_block_rms(config.max_update_rms),
        optax.scale_by_param_block_rms() if config.relative else optax.identity(),
        optax.identity() if config.momentum is None else optax.ema(config.momentum, debias=False),
    )


def _muon(config: Muon, matrices: dict[str, Any]) -> optax.GradientTransformation:
    """Returns Muon's direction for parameters that are matrices; the others of the tree are masked out.

    Args:
      config: momentum and iterations.
      matrices: `MuonDimensionNumbers` for each parameter, None for those that are no matrices.
    """

    def axes_of(updates: optax.Updates) -> Any:
        masked = optax.MaskedNode()
        return jax.tree.map(lambda axes: masked if axes is None else axes, matrices, is_leaf=_is_matrix_axes)

    def scale(update: jax.Array, axes: contrib.MuonDimensionNumbers) -> jax.Array:
        sizes = (math.prod(update.shape[axis] for axis in side) for side in axes)
        return update * (_MUON_RMS * math.sqrt(max(sizes)))

    momentum_dtype = jnp.dtype(config.adamw.moment_dtype)
    orthogonalised = contrib.scale_by_muon(
        ns_steps=config.newton_schulz_steps,
        beta=config.momentum,
        mu_dtype=momentum_dtype,
        weight_dimension_numbers=axes_of,
    )
    scaled = optax.stateless(lambda updates, _: jax.tree.map(scale, updates, axes_of(updates)))
    return optax.chain(orthogonalised, scaled)


def _matrix_axes(path: tuple[str, ...], spec: Any) -> contrib.MuonDimensionNumbers | None:
    """Returns which axes of a parameter are the inputs and outputs of a matrix, None where it is none of a layer's."""
    axes = range(len(spec.axes))
    if "rank" in spec.axes:  # an adapter's A or B
        rank = spec.axes.index("rank")
        inputs, outputs = (axes[1:rank], axes[rank:]) if rank > 1 else (axes[1:2], axes[2:])
    elif path[-1] == "kernel" and path[0] == "layers":
        split = 1 + len(LAYOUTS[path[-2]][0])
        inputs, outputs = axes[1:split], axes[split:]
    else:
        return None
    return contrib.MuonDimensionNumbers(tuple(inputs), tuple(outputs))


def _is_matrix_axes(node: Any) -> bool:
    return node is None or isinstance(node, contrib.MuonDimensionNumbers)


def _map_specs(function: Any, specs: dict[str, Any]) -> dict[str, Any]:
    """Returns `specs` with function(path of keys, spec) in place of each declaration."""
    return jax.tree_util.tree_map_with_path(
        lambda path, spec: function(tuple(part.key for part in path), spec),
        specs,
        is_leaf=lambda node: hasattr(node, "axes"),
    )
