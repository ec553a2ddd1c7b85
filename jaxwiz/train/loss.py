"""The next-token loss of packed rows, without ever holding the logits of a whole batch.

At [B, T, V] float32 the logits are the largest array of a fine-tuning step (8 rows of 2,048 positions and 32,000 tokens
take 2 GiB), so they are made for a few positions of every row at a time and dropped at once. Two things make that fast:

- The gradient with respect to hidden states and head is computed in the same visit (the loss is a sum, so its gradient
  is known up to one scalar). Nothing is recomputed in the backward pass: 3 matrix products a chunk, not 4.
- In each row, positions that bear loss are moved to the front, and chunks beyond the fullest row's last one are never
  visited. Prompts and padding cost nothing. Sorting within rows keeps every row on its own device.

On a mesh each device visits the chunks of its own rows and adds up its own gradient of the head; the sums meet once, at
the end. Left to itself the compiler would add up the gradient of the whole head over all devices after every chunk.

Normalisation is left to the caller, because sum and count must first be added up over micro-batches.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.sharding.rules import RULES


def shift_targets(tokens: jax.Array, loss_mask: jax.Array, segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what each position must predict, and whether that bears loss.

    Args:
      tokens: int32 [B, T].
      loss_mask: bool or integer [B, T]; says of the token at t whether it is trained on, as the target of t - 1.
      segment_ids: int32 [B, T]; 0 is padding. The first token of a segment is predicted from nowhere.

    Returns:
      (targets int32 [B, T], bears_loss bool [B, T]); the last position predicts nothing.
    """
    targets = jnp.roll(tokens, -1, axis=1)
    within_segment = (jnp.roll(segment_ids, -1, axis=1) == segment_ids) & (segment_ids > 0)
    has_next = jnp.arange(tokens.shape[1]) < tokens.shape[1] - 1
    return targets, jnp.roll(loss_mask.astype(bool), -1, axis=1) & within_segment & has_next


def next_token_loss(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    bears_loss: jax.Array,
    chunk_positions: int,
    mesh: Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of cross entropies over loss-bearing targets, and how many there are.

    Args:
      hidden: [B, T, D] final hidden states, float32 or bfloat16; matrix products are done in this dtype.
      head: float32 [D, V] output projection.
      targets: int32 [B, T] token ids.
      bears_loss: bool [B, T].
      chunk_positions: positions of every row whose logits exist at once.
      mesh: the devices over which rows are split; None: one device.

    Returns:
      (float32 sum in nats, int32 count). The sum is differentiable in `hidden` and `head`.
    """
    sum_of_rows = functools.partial(_loss_of_rows, chunk_positions)
    if mesh is None:
        return sum_of_rows(hidden, head, targets, bears_loss)

    def sum_of_all(*local: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lax.psum(sum_of_rows(*local), RULES["batch"])

    rows, whole = PartitionSpec(RULES["batch"]), PartitionSpec()
    return jax.shard_map(
        sum_of_all,
        mesh=mesh,
        in_specs=(rows, whole, rows, rows),
        out_specs=(whole, whole),
        axis_names=set(RULES["batch"]),  # along the others, over which V is split, the compiler still decides
        check_vma=False,
    )(hidden, head, targets, bears_loss)


def _loss_of_rows(
    chunk_positions: int, hidden: jax.Array, head: jax.Array, targets: jax.Array, bears_loss: jax.Array
) -> tuple[jax.Array, jax.Array]:
    T = targets.shape[1]
    chunk_positions = min(chunk_positions, T)
    order = jnp.argsort(~bears_loss, axis=1, stable=True)
    order = jnp.pad(order, ((0, 0), (0, -T % chunk_positions)))  # what pads the last chunk bears no loss, see below
    take_rows = jax.vmap(lambda row, indices: row[indices])
    counts = jnp.sum(bears_loss, axis=1, dtype=jnp.int32)
    front = jnp.arange(order.shape[1])[None, :] < counts[:, None]
    with jax.named_scope("loss"):
        loss_sum = _front_loss(chunk_positions, take_rows(hidden, order), head, take_rows(targets, order), front)
    return loss_sum, jnp.sum(counts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _front_loss(
    chunk_positions: int, hidden: jax.Array, head: jax.Array, targets: jax.Array, front: jax.Array
) -> jax.Array:
    """Returns the loss sum of rows whose loss-bearing positions come first; T is a multiple of the chunk."""
    head = head.astype(hidden.dtype)  # once, not chunk after chunk

    def visit(index: jax.Array, loss_sum: jax.Array) -> jax.Array:
        chunk_hidden, chunk_targets, chunk_front = _chunk(index, chunk_positions, hidden, targets, front)
        chunk_loss, _ = _chunk_loss(chunk_hidden, chunk_targets, chunk_front, head)
        return loss_sum + chunk_loss

    return lax.fori_loop(0, _chunks_with_loss(front, chunk_positions), visit, jnp.zeros((), jnp.float32))


def _front_loss_with_gradient(
    chunk_positions: int, hidden: jax.Array, head: jax.Array, targets: jax.Array, front: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the loss sum and its gradient with respect to hidden states and head."""
    head_dtype, head = head.dtype, head.astype(hidden.dtype)

    def visit(index: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss_sum, hidden_gradient, head_gradient = sums
        chunk_hidden, chunk_targets, chunk_front = _chunk(index, chunk_positions, hidden, targets, front)
        chunk_loss, probabilities = _chunk_loss(chunk_hidden, chunk_targets, chunk_front, head)
        is_target = jnp.arange(head.shape[1]) == chunk_targets[..., None]
        logit_gradient = jnp.where(chunk_front[..., None], probabilities - is_target, 0.0).astype(hidden.dtype)
        chunk_gradient = jnp.einsum("BTV,DV->BTD", logit_gradient, head)
        start = index * chunk_positions
        return (
            loss_sum + chunk_loss,
            lax.dynamic_update_slice_in_dim(hidden_gradient, chunk_gradient, start, axis=1),
            head_gradient + jnp.einsum("BTD,BTV->DV", chunk_hidden, logit_gradient, preferred_element_type=jnp.float32),
        )

    empty = (jnp.zeros((), jnp.float32), jnp.zeros_like(hidden), jnp.zeros(head.shape, jnp.float32))
    sums = lax.fori_loop(0, _chunks_with_loss(front, chunk_positions), visit, empty)
    return sums[0], (sums[1], sums[2].astype(head_dtype))


def _scale_gradient(
    chunk_positions: int, gradients: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[Any, ...]:
    del chunk_positions
    hidden_gradient, head_gradient = gradients
    return (
        (hidden_gradient * cotangent).astype(hidden_gradient.dtype),
        (head_gradient * cotangent).astype(head_gradient.dtype),
        None,
        None,
    )


_front_loss.defvjp(_front_loss_with_gradient, _scale_gradient)


def _chunks_with_loss(front: jax.Array, chunk_positions: int) -> jax.Array:
    fullest_row = jnp.max(jnp.sum(front, axis=1, dtype=jnp.int32))
    return (fullest_row + chunk_positions - 1) // chunk_positions


def _chunk(index: jax.Array, chunk_positions: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    start = index * chunk_positions
    return tuple(lax.dynamic_slice_in_dim(array, start, chunk_positions, axis=1) for array in arrays)


def _chunk_loss(
    hidden: jax.Array, targets: jax.Array, front: jax.Array, head: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns one chunk's loss sum and its float32 token probabilities [B, T, V]."""
    logits = jnp.einsum("BTD,DV->BTV", hidden, head, preferred_element_type=jnp.float32)
    log_total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    losses = jnp.where(front, (log_total - target_logits)[..., 0], 0.0)
    return jnp.sum(losses), jnp.exp(logits - log_total)
