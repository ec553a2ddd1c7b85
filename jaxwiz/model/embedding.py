"""The embedding of tokens on a mesh, written out by hand.

The table lies along `embed` and `vocab`, tokens along `batch` and `length`, and these share mesh axes: the compiler,
left alone, may give every device the whole table or all rows. Here each device looks up its own columns for the tokens
of all devices that share the table, and one all-to-all an axis turns columns of many tokens into few whole tokens: as
many numbers as the result has, where gathering the table would send V x D of them, and its gradient as many again.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.sharding.rules import RULES


def look_up(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype, mesh: Mesh, axis: str = "vocab") -> jax.Array:
    """Returns the rows of the table at `tokens`, [B, T, D] in `dtype`, lying as hidden states do between layers.

    Args:
      table: [V, D], lying along (axis, "embed").
      tokens: int32 [B, T], lying along ("batch", "length").
      dtype: what is sent and returned; gradients are added up in the table's dtype.
      mesh: the devices.
      axis: the logical axis of the table's rows; of a table of positions another one than of tokens.
    """
    rows, positions, columns, vocab = (RULES[name] for name in ("batch", "length", "embed", axis))

    def local(table: jax.Array, tokens: jax.Array) -> jax.Array:
        # Dimension of `tokens` that an axis splits: those axes give up rows or positions for columns.
        dimensions = dict.fromkeys(rows, 0) | dict.fromkeys(positions, 1)
        for column in columns:
            tokens = lax.all_gather(tokens, column, axis=dimensions[column], tiled=True)
        first = lax.axis_index(vocab) * table.shape[0]
        here = (tokens >= first) & (tokens < first + table.shape[0])
        x = jnp.where(here[..., None], table[jnp.where(here, tokens - first, 0)], 0).astype(dtype)
        for column in reversed(columns):  # the last axis is the one whose parts of D are neighbours
            x = lax.all_to_all(x, column, split_axis=dimensions[column], concat_axis=2, tiled=True)
        return lax.psum(x, vocab)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(vocab, columns), PartitionSpec(rows, positions)),
        out_specs=PartitionSpec(rows, positions),
    )(table, tokens)
