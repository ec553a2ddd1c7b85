"""The next-token loss of packed rows, without ever holding the logits of a whole batch.

At [B, T, V] float32 the logits are the largest array of a fine-tuning step (8 rows of 2,048 positions and 32,000 tokens
take 2 GiB), so they are made for a few positions of every row at a time and dropped at once. Two things make that fast:

- The gradient with respect to hidden states and head is computed in the same visit (the loss is a sum, so its gradient
  is known up to one scalar). Nothing is recomputed in the backward pass: 3 matrix products a chunk, not 4.
- In each row, positions that bear loss are moved to the front, and chunks beyond the fullest row's last one are never
  visited. Prompts and padding cost nothing. Sorting within rows keeps every row on its own device.

On a mesh each device visits the chunks of its own rows and positions, with its columns of the head gathered once, in
the compute dtype, and adds up its own gradient of them; the sums meet once, at the end, each device getting its part.
Within a chunk, devices that share the vocabulary exchange a few numbers a position. Left to itself the compiler would
add up the gradient of the whole head over all devices after every chunk.

Normalisation is left to the caller, because sum and count must first be added up over micro-batches.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.sharding.rules import RULES

_IMPOSSIBLE = -1e30  # logit of a token that isn't one; finite, so that smoothing and squares stay numbers


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step minimises: cross entropy with smoothed targets, and a pull of log Z towards 0.

    Attributes:
      z_loss: weight of the squared logarithm of the softmax's normaliser (PaLM, arXiv 2204.02311, section 5).
      label_smoothing: the part of the target's probability that is spread evenly over the vocabulary.
      vocab_size: how many of the head's columns are tokens, None: all of them. Those beyond only fill the head up so
        that it can be split; they get no probability.
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0
    vocab_size: int | None = None


CROSS_ENTROPY = Objective()


class HeadAxes(NamedTuple):
    """The mesh axes along which D and V of the head [D, V] are split; () where they are not."""

    embed: tuple[str, ...] = ()
    vocab: tuple[str, ...] = ()


class LossSums(NamedTuple):
    """Sums over loss-bearing targets, for reports: without gradient.

    Attributes:
      cross_entropy: of the targets alone, whatever else is minimised; float32, nats.
      z_loss: weighted; float32.
      targets: how many, int32.
    """

    cross_entropy: jax.Array
    z_loss: jax.Array
    targets: jax.Array


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
    objective: Objective = CROSS_ENTROPY,
) -> tuple[jax.Array, LossSums]:
    """Returns the objective summed over loss-bearing targets, float32, and what it is made of.

    Args:
      hidden: [B, T, D] final hidden states, float32 or bfloat16; matrix products are done in this dtype.
      head: float32 [D, V] output projection.
      targets: int32 [B, T] token ids.
      bears_loss: bool [B, T].
      chunk_positions: positions of every row whose logits exist at once on a device.
      mesh: the devices over which rows and positions are split; None: one device.
      objective: what is summed up; differentiable in `hidden` and `head`.
    """
    if mesh is None:
        return _loss_of_rows(chunk_positions, objective, HeadAxes(), hidden, head, targets, bears_loss)
    split = HeadAxes(RULES["embed"], RULES["vocab"])

    def sum_of_all(*local: jax.Array) -> tuple[jax.Array, LossSums]:
        of_tokens = (*RULES["batch"], *RULES["length"])
        return lax.psum(_loss_of_rows(chunk_positions, objective, split, *local), of_tokens)

    tokens, whole = PartitionSpec(RULES["batch"], RULES["length"]), PartitionSpec()
    return jax.shard_map(
        sum_of_all,
        mesh=mesh,
        in_specs=(tokens, PartitionSpec(*split), tokens, tokens),
        out_specs=(whole, whole),
        check_vma=False,
    )(hidden, head, targets, bears_loss)


def _loss_of_rows(
    chunk_positions: int,
    objective: Objective,
    split: HeadAxes,
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    bears_loss: jax.Array,
) -> tuple[jax.Array, LossSums]:
    T = targets.shape[1]
    chunk_positions = min(chunk_positions, T)
    order = jnp.argsort(~bears_loss, axis=1, stable=True)
    order = jnp.pad(order, ((0, 0), (0, -T % chunk_positions)))  # what pads the last chunk bears no loss, see below
    take_rows = jax.vmap(lambda row, indices: row[indices])
    counts = jnp.sum(bears_loss, axis=1, dtype=jnp.int32)
    front = jnp.arange(order.shape[1])[None, :] < counts[:, None]
    with jax.named_scope("loss"):
        hidden, targets = take_rows(hidden, order), take_rows(targets, order)
        total, parts = _front_loss(chunk_positions, objective, split, hidden, head, targets, front)
    cross_entropy, z_loss = lax.stop_gradient(parts)
    return total, LossSums(cross_entropy, z_loss, jnp.sum(counts))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _front_loss(
    chunk_positions: int,
    objective: Objective,
    split: HeadAxes,
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    front: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns (objective, (cross entropy, z-loss)), summed, of rows whose loss-bearing positions come first.

    T is a multiple of the chunk. `head` is this device's part along the axes of `split`.
    """
    head = _whole_columns(head, split, hidden.dtype)

    def visit(index: jax.Array, sums: jax.Array) -> jax.Array:
        chunk_hidden, chunk_targets, chunk_front = _chunk(index, chunk_positions, hidden, targets, front)
        return sums + _chunk_loss(objective, split, chunk_hidden, chunk_targets, chunk_front, head)[0]

    sums = lax.fori_loop(0, _chunks_with_loss(front, chunk_positions), visit, jnp.zeros(3, jnp.float32))
    return sums[0], (sums[1], sums[2])


def _front_loss_with_gradient(
    chunk_positions: int,
    objective: Objective,
    split: HeadAxes,
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    front: jax.Array,
) -> tuple[tuple[jax.Array, tuple[jax.Array, jax.Array]], tuple[jax.Array, jax.Array]]:
    """Returns the sums, and the objective's gradient with respect to hidden states and head.

    That of hidden states is what comes through this device's columns of the head; `shard_map` adds up such parts.
    """
    head_dtype, head = head.dtype, _whole_columns(head, split, hidden.dtype)

    def visit(index: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        sums, hidden_gradient, head_gradient = carry
        chunk_hidden, chunk_targets, chunk_front = _chunk(index, chunk_positions, hidden, targets, front)
        chunk_sums, logit_gradient = _chunk_loss(objective, split, chunk_hidden, chunk_targets, chunk_front, head)
        logit_gradient = logit_gradient.astype(hidden.dtype)
        chunk_gradient = jnp.einsum("BTV,DV->BTD", logit_gradient, head)
        start = index * chunk_positions
        return (
            sums + chunk_sums,
            lax.dynamic_update_slice_in_dim(hidden_gradient, chunk_gradient, start, axis=1),
            head_gradient + jnp.einsum("BTD,BTV->DV", chunk_hidden, logit_gradient, preferred_element_type=jnp.float32),
        )

    empty = (jnp.zeros(3, jnp.float32), jnp.zeros_like(hidden), jnp.zeros(head.shape, jnp.float32))
    sums, hidden_gradient, head_gradient = lax.fori_loop(0, _chunks_with_loss(front, chunk_positions), visit, empty)
    if split.embed:
        head_gradient = lax.psum_scatter(head_gradient, split.embed, tiled=True)
    return (sums[0], (sums[1], sums[2])), (hidden_gradient, head_gradient.astype(head_dtype))


def _scale_gradient(
    chunk_positions: int,
    objective: Objective,
    split: HeadAxes,
    gradients: tuple[jax.Array, jax.Array],
    cotangents: tuple[jax.Array, Any],
) -> tuple[Any, ...]:
    del chunk_positions, objective
    hidden_gradient, head_gradient = gradients
    # Devices that share the vocabulary made one and the same sum; each was given its part of the sum's cotangent.
    cotangent = _over_vocabulary(lax.psum, cotangents[0], split)
    return (
        (hidden_gradient * cotangent).astype(hidden_gradient.dtype),
        (head_gradient * cotangent).astype(head_gradient.dtype),
        None,
        None,
    )


_front_loss.defvjp(_front_loss_with_gradient, _scale_gradient)


def _whole_columns(head: jax.Array, split: HeadAxes, dtype: jnp.dtype) -> jax.Array:
    """Returns this device's columns of the head in the compute dtype, [D, V / devices], gathered once."""
    head = head.astype(dtype)
    return lax.all_gather(head, split.embed, tiled=True) if split.embed else head


def _over_vocabulary(collective: Callable[..., jax.Array], x: jax.Array, split: HeadAxes) -> jax.Array:
    return collective(x, split.vocab) if split.vocab else x


def _chunks_with_loss(front: jax.Array, chunk_positions: int) -> jax.Array:
    fullest_row = jnp.max(jnp.sum(front, axis=1, dtype=jnp.int32))
    return (fullest_row + chunk_positions - 1) // chunk_positions


def _chunk(index: jax.Array, chunk_positions: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    start = index * chunk_positions
    return tuple(lax.dynamic_slice_in_dim(array, start, chunk_positions, axis=1) for array in arrays)


def _chunk_loss(
    objective: Objective, split: HeadAxes, hidden: jax.Array, targets: jax.Array, front: jax.Array, head: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns one chunk's sums (objective, cross entropy, z-loss) [3] and the objective's gradient of the logits.

    With logits x, log Z = log sum exp(x), smoothing e and V tokens:

        cross entropy  log Z - x_target
        smoothed       log Z - (1 - e) x_target - e mean(x)
        z-loss         z (log Z)^2
    """
    columns = jnp.arange(head.shape[1])
    total_columns = head.shape[1]
    if split.vocab:
        columns += lax.axis_index(split.vocab) * head.shape[1]
        total_columns *= lax.axis_size(split.vocab)
    vocab_size, smoothing = objective.vocab_size or total_columns, objective.label_smoothing
    is_token, is_target = columns < vocab_size, columns == targets[..., None]
    logits = jnp.einsum("BTD,DV->BTV", hidden, head, preferred_element_type=jnp.float32)
    if vocab_size < total_columns:
        logits = jnp.where(is_token, logits, _IMPOSSIBLE)
    highest = _over_vocabulary(lax.pmax, jnp.max(logits, axis=-1), split)
    wanted = is_target * (1 - smoothing)
    sums_of_columns = [jnp.exp(logits - highest[..., None]), jnp.where(is_target, logits, 0.0)]
    if smoothing:
        wanted += jnp.where(is_token, smoothing / vocab_size, 0.0)
        sums_of_columns.append(wanted * logits)
    sums = _over_vocabulary(lax.psum, jnp.stack([jnp.sum(part, axis=-1) for part in sums_of_columns]), split)
    log_total = jnp.log(sums[0]) + highest
    z_loss = objective.z_loss * log_total * log_total
    total = log_total - sums[-1] + z_loss
    probabilities = jnp.exp(logits - log_total[..., None])
    pull = 1 + 2 * objective.z_loss * log_total[..., None]
    gradient = jnp.where(front[..., None], pull * probabilities - wanted, 0.0)
    parts = (total, log_total - sums[1], z_loss)
    return jnp.stack([jnp.sum(jnp.where(front, part, 0.0)) for part in parts]), gradient
