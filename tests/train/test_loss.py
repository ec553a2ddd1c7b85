"""The chunked loss equals the plain one, value and gradient; packing and micro-batching change nothing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.train.config import ComputeConfig
from jaxwiz.train.loss import LossSums, Objective, next_token_loss, shift_targets
from jaxwiz.train.step import loss_and_gradient, loss_sums
from tests.devices import run_on_eight_devices
from tests.train.tiny import MODEL, packed_row, random_examples, random_params, stack

COMPUTE = ComputeConfig(loss_chunk_positions=8)


def test_shift_masks_prompts_borders_padding_and_the_last_position() -> None:
    tokens = jnp.array([[11, 12, 13, 21, 22, 0]])
    loss_mask = jnp.array([[0, 1, 1, 1, 1, 1]])  # the first token of segment 2 is marked, but nothing predicts it
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 0]])
    targets, bears_loss = shift_targets(tokens, loss_mask, segment_ids)
    assert bears_loss.astype(int).tolist() == [[1, 1, 0, 1, 0, 0]]
    assert targets[bears_loss].tolist() == [12, 13, 22]


# In bfloat16 a gradient is rounded to 2^-9 of its size three times: for the logits, through the head, and scaled.
@pytest.mark.parametrize(("dtype", "gradient_rounding"), [("float32", 0.0), ("bfloat16", 3 * 2**-9)])
@pytest.mark.parametrize("chunk_positions", [1, 5, 16, 100])
def test_chunked_loss_equals_plain_loss_with_its_gradient(
    chunk_positions: int, dtype: str, gradient_rounding: float
) -> None:
    B, T, D, V = 3, 16, 8, 50
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, head = (
        jax.random.normal(key, shape).astype(dtype) for key, shape in zip(keys, ((B, T, D), (D, V)), strict=False)
    )
    head = head.astype(jnp.float32)  # the master weights; here they happen to be numbers that bfloat16 has
    targets = jax.random.randint(keys[2], (B, T), 0, V)
    bears_loss = jax.random.bernoulli(keys[3], 0.5, (B, T)).at[0].set(False).at[1].set(True)

    def plain(hidden: jax.Array, head: jax.Array) -> jax.Array:
        log_probabilities = jax.nn.log_softmax(hidden.astype(jnp.float32) @ head)
        picked = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
        return -3 * jnp.sum(picked * bears_loss)  # 3: the incoming gradient must be applied

    def chunked(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss_sum, parts = next_token_loss(hidden, head, targets, bears_loss, chunk_positions)
        return 3 * loss_sum, parts

    expected, expected_gradients = jax.value_and_grad(plain, argnums=(0, 1))(hidden, head)
    (loss, parts), gradients = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1), has_aux=True))(hidden, head)
    assert parts.targets == jnp.sum(bears_loss)
    assert 3 * parts.cross_entropy == loss and parts.z_loss == 0
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(chunked(hidden, head)[0], expected, rtol=1e-5)  # the way without gradient
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == expected_gradient.dtype
        largest = jnp.abs(expected_gradient).max().astype(jnp.float32)
        wide, expected_wide = gradient.astype(jnp.float32), expected_gradient.astype(jnp.float32)
        np.testing.assert_allclose(wide, expected_wide, atol=1e-5 + gradient_rounding * largest)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(z_loss=1e-2),
        Objective(label_smoothing=0.2),
        Objective(vocab_size=45),
        Objective(z_loss=1e-2, label_smoothing=0.2, vocab_size=45),
    ],
    ids=str,
)
def test_other_objectives_equal_their_plain_formula_and_report_cross_entropy_apart(objective: Objective) -> None:
    B, T, D, V = 3, 16, 8, 50
    tokens = objective.vocab_size or V
    keys = jax.random.split(jax.random.key(0), 4)
    hidden, head = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (D, V))
    targets = jax.random.randint(keys[2], (B, T), 0, tokens)
    bears_loss = jax.random.bernoulli(keys[3], 0.5, (B, T))

    def plain(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = (hidden @ head)[..., :tokens]
        wanted = jax.nn.one_hot(targets, tokens)
        log_probabilities = jax.nn.log_softmax(logits)
        smoothed = wanted * (1 - objective.label_smoothing) + objective.label_smoothing / tokens
        z_loss = objective.z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
        total = jnp.sum((z_loss - jnp.sum(smoothed * log_probabilities, axis=-1)) * bears_loss)
        return total, -jnp.sum(jnp.sum(wanted * log_probabilities, axis=-1) * bears_loss)

    def chunked(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, LossSums]:
        return next_token_loss(hidden, head, targets, bears_loss, 5, objective=objective)

    def value_and_gradient(function: Callable) -> Any:
        return jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))(hidden, head)

    (expected, expected_cross_entropy), expected_gradients = value_and_gradient(plain)
    (found, parts), gradients = value_and_gradient(chunked)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(parts.cross_entropy, expected_cross_entropy, rtol=1e-5)
    assert (parts.z_loss > 0) == (objective.z_loss > 0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_targets_are_right_where_a_row_goes_on_on_the_next_device() -> None:
    program = """
import jax, jax.numpy as jnp
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.loss import shift_targets
tokens = jnp.arange(1, 33).reshape(2, 16)
segments = jnp.array([[1] * 4 + [2] * 12, [1] * 9 + [2] * 5 + [0] * 2])
arguments = (tokens, (tokens % 3 > 0).astype(int), segments)
mesh = make_mesh(MeshConfig(fsdp=2, context=4))
split = jax.jit(shift_targets)(*(jax.device_put(x, batch_sharding(mesh)) for x in arguments))
print(all((one == other).all() for one, other in zip(split, shift_targets(*arguments))))
"""
    assert run_on_eight_devices("-c", program).split() == ["True"]


def test_eight_devices_give_the_same_loss_and_add_up_the_head_gradient_once() -> None:
    program = """
import functools, re
import jax, jax.numpy as jnp, numpy as np
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding, sharding_of
from jaxwiz.train.loss import next_token_loss

B, T, D, V = 8, 16, 24, 40
keys = jax.random.split(jax.random.key(0), 4)
hidden, head = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (D, V))
arguments = (hidden, head, jax.random.randint(keys[2], (B, T), 0, V), jax.random.bernoulli(keys[3], 0.5, (B, T)))
loss = functools.partial(next_token_loss, chunk_positions=4)
expected = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(*arguments)
for sizes in (MeshConfig(fsdp=8), MeshConfig(fsdp=2, context=2, tensor=2)):
    mesh = make_mesh(sizes)
    placed = [jax.device_put(x, batch_sharding(mesh)) for x in arguments]
    placed[1] = jax.device_put(head, sharding_of(mesh, "head", (D, V), ("embed", "vocab")))
    step = jax.jit(jax.value_and_grad(functools.partial(loss, mesh=mesh), (0, 1), has_aux=True))
    compiled = step.lower(*placed).compile()
    for got, wanted in zip(jax.tree.leaves(compiled(*placed)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=1e-6)
    D_local, V_local = D // mesh.shape["fsdp"] // mesh.shape["context"], V // mesh.shape["tensor"]
    sums = re.findall(rf"= \\(?[^=]*f32\\[{D_local},{V_local}\\][^=]* reduce-scatter\\(.*", compiled.as_text())
    print(len(sums), any("while" in line for line in sums))
"""
    assert run_on_eight_devices("-c", program).split() == ["1", "False"] * 2


def test_no_loss_bearing_target_gives_zero_not_nan() -> None:
    hidden, head, targets = jnp.ones((1, 4, 3)), jnp.ones((3, 5)), jnp.zeros((1, 4), int)
    value_and_gradient = jax.value_and_grad(next_token_loss, has_aux=True)
    (loss, parts), gradient = value_and_gradient(hidden, head, targets, jnp.zeros((1, 4), bool), 2)
    assert (loss, *parts) == (0, 0, 0, 0)
    assert not gradient.any()


def test_packed_row_loss_is_the_token_weighted_mean_of_its_examples_run_alone() -> None:
    examples = random_examples(1, [(9, 4), (13, 2), (6, 5)])
    params = random_params()
    evaluate = jax.jit(loss_sums, static_argnums=(2, 3))
    packed_sum, packed = evaluate(params, stack([packed_row(examples, 32)]), MODEL, COMPUTE)
    alone = [evaluate(params, stack([packed_row([example], 32)]), MODEL, COMPUTE) for example in examples]
    means = [float(loss_sum / parts.targets) for loss_sum, parts in alone]
    counts = [int(parts.targets) for _, parts in alone]
    assert counts == [5, 11, 1]
    assert max(means) - min(means) > 0.1  # else a wrong weighting would not show
    assert int(packed.targets) == sum(counts)
    np.testing.assert_allclose(packed_sum / packed.targets, np.average(means, weights=counts), atol=1e-5)


def test_micro_batches_with_uneven_masks_equal_one_big_batch() -> None:
    lengths = [[(20, 2)], [(9, 8)], [(7, 3), (10, 9)], [(24, 20)], [(5, 4)], [(12, 1), (12, 1)], [(24, 1)], [(3, 2)]]
    batch = stack([packed_row(random_examples(seed, row), 24) for seed, row in enumerate(lengths)])
    params = random_params()
    gradient_of = jax.jit(loss_and_gradient, static_argnums=(2, 3, 4))
    loss, gradient = gradient_of(params, batch, MODEL, COMPUTE, 1)
    other_loss, other_gradient = gradient_of(params, batch, MODEL, COMPUTE, 4)
    assert other_loss.targets == loss.targets
    np.testing.assert_allclose(other_loss, loss, atol=1e-5)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(other, one, atol=1e-5), gradient, other_gradient)


def test_bfloat16_changes_the_loss_little() -> None:
    batch = stack([packed_row(random_examples(3, [(20, 2)]), 24)])
    params = random_params()
    evaluate = jax.jit(loss_sums, static_argnums=(2, 3))
    loss_sum, _ = evaluate(params, batch, MODEL, COMPUTE)
    half_sum, _ = evaluate(params, batch, MODEL, ComputeConfig(dtype="bfloat16"))
    assert half_sum.dtype == jnp.float32
    np.testing.assert_allclose(half_sum, loss_sum, rtol=0.02)
