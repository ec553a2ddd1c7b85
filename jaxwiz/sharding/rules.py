"""From logical axes to mesh axes: one table, and errors instead of silent replication."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.files import UserError

# Logical axis -> mesh axes it is split over. An axis that is not listed is an error; () means "never split".
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": (),
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "norm": (),
    "rank": (),
}


def sharding_of(mesh: Mesh, name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> NamedSharding:
    """Returns how one array lies on the mesh.

    Args:
      mesh: the device mesh.
      name: the array's name, for messages.
      shape: its shape.
      axes: the logical name of each dimension.

    Raises:
      UserError: a dimension without a rule, a mesh axis used twice, or a size that does not divide; names all three.
    """
    used: dict[str, str] = {}
    partition: list[Any] = []
    for size, axis in zip(shape, axes, strict=True):
        if axis not in RULES:
            raise UserError(f"{name}: no sharding rule for axis {axis!r}; add it to RULES in jaxwiz/sharding/rules.py")
        mesh_axes = RULES[axis]
        ways = 1
        for mesh_axis in mesh_axes:
            if mesh_axis in used:
                raise UserError(f"{name}: axes {used[mesh_axis]!r} and {axis!r} both lie along mesh axis {mesh_axis!r}")
            used[mesh_axis] = axis
            ways *= mesh.shape[mesh_axis]
        if size % ways:
            raise UserError(
                f"{name}: axis {axis!r} has size {size}, which does not divide by the {ways} devices along "
                f"{' x '.join(mesh_axes)}; choose mesh sizes that divide it"
            )
        partition.append(mesh_axes or None)
    return NamedSharding(mesh, PartitionSpec(*partition))


def param_shardings(mesh: Mesh, specs: dict[str, Any]) -> dict[str, Any]:
    """Returns a `NamedSharding` for every parameter declaration (anything with `shape` and `axes`) in a nested dict.

    Raises:
      UserError: see `sharding_of`.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, spec: sharding_of(
            mesh, jax.tree_util.keystr(path, simple=True, separator="."), spec.shape, spec.axes
        ),
        specs,
        is_leaf=lambda node: hasattr(node, "axes"),
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how [B, T] token arrays lie on the mesh: rows over data and fsdp, columns whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], None))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole, such as a scalar metric."""
    return NamedSharding(mesh, PartitionSpec())
