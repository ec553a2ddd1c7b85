"""AdamW with a warm-up schedule and global-norm clipping, put together from optax parts.

Weight decay is decoupled (Loshchilov and Hutter, arXiv 1711.05101) and spares norm scales: pulling them to zero would
switch channels off instead of regularising.
"""

from typing import Any

import jax
import optax

from jaxwiz.train.config import OptimizerConfig


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
      config: AdamW and schedule.
      steps: all steps of the run.
      specs: parameter declarations; norm scales and biases are exempt from weight decay, as in transformers' Trainer.
    """
    decayed = jax.tree_util.tree_map_with_path(
        lambda path, spec: "norm" not in spec.axes and path[-1].key != "bias",
        specs,
        is_leaf=lambda node: hasattr(node, "axes"),
    )
    adamw = optax.adamw(
        learning_rate_schedule(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if config.max_grad_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), adamw)
