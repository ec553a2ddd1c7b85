"""With bfloat16 compute every matrix product of a step has bfloat16 operands; loss and gradients are float32."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxwiz.model.params import abstract_params
from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.step import loss_and_gradient
from tests.train.tiny import MODEL

BATCH = {name: jax.ShapeDtypeStruct((2, 24), jnp.int32) for name in ("tokens", "loss_mask", "segment_ids", "positions")}


def products(jaxpr: Any) -> Iterator[Any]:
    """Yields every matrix product of a program, also those in its loops and recomputations."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from products(inner)


@pytest.mark.parametrize("attention", ["reference", "xla"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_every_product_of_a_bfloat16_step_has_bfloat16_operands(attention: str, remat: str) -> None:
    compute = ComputeConfig(dtype="bfloat16", attention=attention, remat=remat)
    program = jax.make_jaxpr(lambda params, batch: loss_and_gradient(params, batch, MODEL, compute))(
        abstract_params(MODEL), BATCH
    )
    found = list(products(program.jaxpr))
    assert len(found) >= 27  # 9 of a layer, 3 times; more with recomputation
    for equation in found:
        dtypes = {str(variable.aval.dtype) for variable in equation.invars}
        assert dtypes == {"bfloat16"}, (dtypes, str(equation.source_info.name_stack))


def test_scores_logits_and_the_sum_of_head_gradients_come_out_in_float32() -> None:
    compute = ComputeConfig(dtype="bfloat16")
    program = jax.make_jaxpr(lambda params, batch: loss_and_gradient(params, batch, MODEL, compute))(
        abstract_params(MODEL), BATCH
    )
    wide = {equation.outvars[0].aval.shape for equation in products(program.jaxpr) if _is_wide(equation)}
    logits, head_gradient = (2, 24, MODEL.vocab_size), (MODEL.hidden_size, MODEL.vocab_size)
    assert {logits, head_gradient} <= wide
    assert any(sorted(shape) == sorted((2, 2, 2, 24, 24)) for shape in wide)  # scores [B, K, G, T, T] in some order


def _is_wide(equation: Any) -> bool:
    return equation.outvars[0].aval.dtype == jnp.float32


def test_loss_and_gradients_of_a_bfloat16_step_are_float32() -> None:
    compute = ComputeConfig(dtype="bfloat16")
    loss, gradient = jax.eval_shape(
        lambda params, batch: loss_and_gradient(params, batch, MODEL, compute), abstract_params(MODEL), BATCH
    )
    assert (loss.objective.dtype, loss.targets.dtype) == (jnp.float32, jnp.int32)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
