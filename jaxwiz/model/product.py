"""Products of activations with weights, in the form that the device at hand computes best.

XLA's CPU backend widens bfloat16 operands to float32 before it multiplies, and so gains nothing from them, unless a
product's result is asked for in float32: then it multiplies them as they are, about twice as fast on processors with
such instructions. The value is the same either way, a float32 sum rounded once. Elsewhere a plain einsum is as fast,
and a float32 result would double what devices exchange where they hold parts of the sum.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

Product = Callable[[str, jax.Array, jax.Array], jax.Array]


def choose_product(dtype: jnp.dtype, mesh: Mesh | None) -> Product:
    """Returns a function (equation, x, kernel) -> y that computes the einsum `equation`, in x's dtype.

    Args:
      dtype: of activations and kernels.
      mesh: the devices; None: the default device.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return _summed_in_float32 if platform == "cpu" and dtype == jnp.bfloat16 else jnp.einsum


def _rounded_once(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32).astype(x.dtype)


_summed_in_float32 = jax.custom_vjp(_rounded_once, nondiff_argnums=(0,))


def _forward(equation: str, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rounded_once(equation, x, kernel), (x, kernel)


def _backward(equation: str, operands: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # JAX's own rule would widen `gradient`, and with it the other operand, before it multiplies.
    x, kernel = operands
    inputs, out = equation.split("->")
    x_axes, kernel_axes = inputs.split(",")
    return (
        _rounded_once(f"{out},{kernel_axes}->{x_axes}", gradient, kernel),
        _rounded_once(f"{x_axes},{out}->{kernel_axes}", x, gradient),
    )


_summed_in_float32.defvjp(_forward, _backward)
