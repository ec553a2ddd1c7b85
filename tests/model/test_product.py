"""The CPU's form of a product has the value and the gradients of the plain einsum, and is taken on a CPU alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.model.product import choose_product
from jaxwiz.model.remat import POLICIES
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

EQUATIONS = {"BTD,DNH->BTNH": ((2, 8, 16), (16, 3, 4)), "BTNH,NHD->BTD": ((2, 8, 3, 4), (3, 4, 16))}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_bfloat16_value_and_gradients_are_those_of_float32_rounded(equation):
    product = choose_product(jnp.bfloat16, make_mesh(MeshConfig()))
    *keys, last = jax.random.split(jax.random.key(0), 3)
    x, kernel = (
        jax.random.normal(key, shape).astype(jnp.bfloat16) for key, shape in zip(keys, EQUATIONS[equation], strict=True)
    )
    y, backward = jax.vjp(lambda *operands: product(equation, *operands), x, kernel)
    wide = [operand.astype(jnp.float32) for operand in (x, kernel)]
    expected, expected_backward = jax.vjp(lambda *operands: jnp.einsum(equation, *operands), *wide)
    gradient = jax.random.normal(last, y.shape).astype(jnp.bfloat16)
    got, wanted = (y, *backward(gradient)), (expected, *expected_backward(gradient.astype(jnp.float32)))
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == jnp.bfloat16
        one, other = np.asarray(one, np.float32), np.asarray(other)
        np.testing.assert_allclose(one, other, rtol=2**-8, atol=1e-6 * np.abs(other).max())


def test_float32_takes_the_plain_einsum():
    assert choose_product(jnp.float32, None) is jnp.einsum


@pytest.mark.parametrize(("policy", "kept"), [("dots", True), ("full", False)])
def test_rematerialisation_policies_see_it_as_any_product(policy, kept):
    product = choose_product(jnp.bfloat16, None)

    def layer(x, kernel):
        return jnp.sin(product("BTD,DF->BTF", x, kernel))

    x, kernel = jnp.ones((1, 4, 8), jnp.bfloat16), jnp.ones((8, 16), jnp.bfloat16)
    _, backward = jax.vjp(jax.checkpoint(layer, policy=POLICIES[policy]), x, kernel)
    assert ((1, 4, 16) in [leaf.shape for leaf in jax.tree.leaves(backward)]) is kept
