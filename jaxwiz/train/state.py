"""The whole of what a training run carries from step to step, and how it lies on the mesh.

There is no data position and no random key: the batch of a step is a function of (seed, step), and so is the dropout of
adapters. Where adapters are trained, the model itself is `frozen`: carried along, never changed and never saved.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.lora import Adapters
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.model.lora_params import init_lora, lora_specs
from jaxwiz.model.params import Params, abstract_params, param_specs
from jaxwiz.sharding.rules import param_shardings, replicated, sharding_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What one step takes and the next one gets.

    The same tree also carries shapes (`abstract_state`) and shardings (`state_shardings`) in place of arrays.

    Attributes:
      step: int32 [], steps done so far; also the position in the data.
      params: what is trained, float32: parameters as `model/params.py` lays them out, or adapters as
        `model/lora_params.py` does.
      opt_state: the optimizer's state; moments have the shapes of their parameters.
      frozen: the parameters that adapters stand beside; {} where all are trained.
    """

    step: Any
    params: Params
    opt_state: Any
    frozen: Params = dataclasses.field(default_factory=dict)

    def to_save(self) -> "TrainState":
        """Returns the state without what the run can load again."""
        return dataclasses.replace(self, frozen={})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrozenBase:
    """What trained adapters stand beside.

    Attributes:
      params: the base's parameters.
      config: rank, scale and dropout of the adapters.
      key: random key of the dropout; None: no dropout, as in evaluation.
    """

    params: Params
    config: LoraConfig = dataclasses.field(metadata={"static": True})
    key: jax.Array | None = None

    def with_adapters(self, adapters: Params) -> tuple[Params, Adapters]:
        """Returns the base's parameters and the adapters as a forward pass takes them."""
        return self.params, Adapters(adapters, self.config, self.key)

    def of_micro_batch(self, number: jax.Array) -> "FrozenBase":
        """Returns this with a key of its own for one micro-batch of the step."""
        return dataclasses.replace(self, key=None if self.key is None else jax.random.fold_in(self.key, number))


class LoraKeys(NamedTuple):
    """The random keys of a run that trains adapters."""

    init: jax.Array
    dropout: jax.Array


def lora_keys(seed: int) -> LoraKeys:
    """Returns the keys that follow from a run's seed."""
    return LoraKeys(*jax.random.split(jax.random.key(seed)))


def trained_specs(model: ModelConfig, lora: LoraConfig | None) -> dict[str, Any]:
    """Returns the declarations of what a run trains: all parameters, or adapters."""
    return param_specs(model) if lora is None else lora_specs(model, lora)


def new_state(params: Params, optimizer: optax.GradientTransformation, frozen: Params | None = None) -> TrainState:
    """Returns the state before the first step; see `TrainState` for `params` and `frozen`."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), frozen or {})


def first_state(
    weights: Params,
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    lora: LoraConfig | None = None,
    seed: int = 0,
) -> TrainState:
    """Returns the state before the first step.

    Args:
      weights: the model's parameters; float32 where they are trained.
      model: its shape.
      optimizer: from `make_optimizer`.
      lora: adapters to train instead.
      seed: of their initial values.
    """
    params = weights if lora is None else init_lora(model, lora, lora_keys(seed).init)
    return new_state(params, optimizer, {} if lora is None else weights)


def abstract_state(
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    lora: LoraConfig | None = None,
    frozen_dtype: jnp.dtype = jnp.float32,
) -> TrainState:
    """Returns shapes and dtypes of a run's state; no memory is taken.

    Args:
      model: the model's shape.
      optimizer: from `make_optimizer`.
      lora: adapters that are trained instead of the model's parameters.
      frozen_dtype: dtype of those parameters then.
    """
    weights = abstract_params(model, jnp.float32 if lora is None else frozen_dtype)
    return jax.eval_shape(lambda weights: first_state(weights, model, optimizer, lora), weights)


def state_shardings(
    model: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh, lora: LoraConfig | None = None
) -> TrainState:
    """Returns a `NamedSharding` for each leaf of the state: moments lie as their parameters, scalars everywhere.

    Raises:
      UserError: a parameter does not fit the mesh; see `sharding/rules.py`.
    """
    specs = trained_specs(model, lora)
    # Of each kernel's two adapters one has no axis that lies along fsdp: all of it is on every such device.
    params = param_shardings(mesh, specs) if lora is None else param_shardings(mesh, specs, max_whole_share=1.0)
    everywhere = replicated(mesh)
    opt_state = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _moment_sharding(mesh, path, leaf.shape, specs) or everywhere,
        abstract_state(model, optimizer, lora).opt_state,
    )
    frozen = {} if lora is None else param_shardings(mesh, param_specs(model))
    return TrainState(everywhere, params, opt_state, frozen)


def _moment_sharding(
    mesh: Mesh, path: tuple[Any, ...], shape: tuple[int, ...], specs: dict[str, Any]
) -> NamedSharding | None:
    """Returns how a leaf of an optimizer's state lies, None where it is not shaped after a parameter.

    A moment has its parameter's keys at the end of its path. Its shape is the parameter's, or, as with Adafactor's rows
    and columns, that without one axis.
    """
    keys = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
    spec: Any = next((found for start in range(len(keys)) if (found := _at(specs, keys[start:]))), None)
    if spec is None:
        return None
    for dropped in (None, *reversed(range(len(spec.shape)))):
        kept = [axis for axis in range(len(spec.shape)) if axis != dropped]
        if shape == tuple(spec.shape[axis] for axis in kept):
            name = ".".join(map(str, keys))
            return sharding_of(mesh, name, shape, tuple(spec.axes[axis] for axis in kept))
    return None


def _at(specs: dict[str, Any], keys: list[str]) -> Any:
    """Returns the declaration under `keys`, None if there is none."""
    node: Any = specs
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return None
        node = node[key]
    return None if isinstance(node, dict) else node
