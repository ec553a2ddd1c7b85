"""The whole of what a training run carries from step to step, and how it lies on the mesh.

There is no data position and no random key: the batch of a step is a function of (seed, step).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import Params, abstract_params, param_specs
from jaxwiz.sharding.rules import param_shardings, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What one step takes and the next one gets.

    The same tree also carries shapes (`abstract_state`) and shardings (`state_shardings`) in place of arrays.

    Attributes:
      step: int32 [], steps done so far; also the position in the data.
      params: float32 parameters as `model/params.py` lays them out.
      opt_state: the optimizer's state; moments have the shapes of their parameters.
    """

    step: Any
    params: Params
    opt_state: Any


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


def abstract_state(config: LlamaConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns shapes and dtypes of a run's state; no memory is taken."""
    return jax.eval_shape(lambda params: new_state(params, optimizer), abstract_params(config))


def state_shardings(config: LlamaConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Returns a `NamedSharding` for each leaf of the state: moments lie as their parameters, scalars everywhere.

    Raises:
      UserError: a parameter does not fit the mesh; see `sharding/rules.py`.
    """
    params = param_shardings(mesh, param_specs(config))
    everywhere = replicated(mesh)
    opt_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        abstract_state(config, optimizer).opt_state,
        params,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(step=everywhere, params=params, opt_state=opt_state)
