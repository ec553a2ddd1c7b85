"""From logical axes to mesh axes: one table, and errors instead of silent replication.

Whoever places an array asks here: parameters and what follows them (moments, gradients) by their declared axes, token
arrays and activations by "batch" and "length". Rules of training and of inference stand in the same table.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.files import UserError

# Logical axis -> mesh axes it is split over. An axis that is not listed is an error; () means "never split".
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("slice", "data", "fsdp"),
    "length": ("context",),
    "layers": (),
    "vocab": ("tensor",),
    "positions": (),
    "embed": ("fsdp", "context"),  # devices that share a row's positions need not hold the same parameters
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "norm": (),
    "rank": (),
    "fused": (),  # matrices that meet the same input
    # Of inference alone: the pages of the key/value cache, which any row's queries may look into.
    "pages": (),
    "page_tokens": (),
}

# What all devices hold whole where there is only one: the head of keys and values that all query heads share.
_SHARED_IF_ONE = ("kv_heads",)

# The part of the parameters' bytes that need not be split over an fsdp axis; norm scales and biases take far less.
MAX_WHOLE_SHARE = 0.02


def mesh_axes(axis: str, size: int) -> tuple[str, ...]:
    """Returns the mesh axes over which a dimension of this logical axis and size is split."""
    return () if size == 1 and axis in _SHARED_IF_ONE else RULES[axis]


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
        split_over = mesh_axes(axis, size)
        ways = 1
        for mesh_axis in split_over:
            if mesh_axis in used:
                raise UserError(f"{name}: axes {used[mesh_axis]!r} and {axis!r} both lie along mesh axis {mesh_axis!r}")
            used[mesh_axis] = axis
            ways *= mesh.shape[mesh_axis]
        if size % ways:
            raise UserError(
                f"{name}: axis {axis!r} has size {size}, which does not divide by the {ways} devices along "
                f"{' x '.join(split_over)}; choose mesh sizes that divide it"
            )
        partition.append(split_over or None)
    return NamedSharding(mesh, PartitionSpec(*partition))


def param_shardings(mesh: Mesh, specs: dict[str, Any], max_whole_share: float = MAX_WHOLE_SHARE) -> dict[str, Any]:
    """Returns a `NamedSharding` for every parameter declaration (anything with `shape` and `axes`) in a nested dict.

    Args:
      mesh: the device mesh.
      specs: the declarations.
      max_whole_share: how much of their bytes may lie along no fsdp axis where the mesh has one.

    Raises:
      UserError: see `sharding_of`; or more than that lies along none, with the largest ones named.
    """
    whole: dict[str, int] = {}
    total = 0

    def place(path: tuple[Any, ...], spec: Any) -> NamedSharding:
        nonlocal total
        name, size = jax.tree_util.keystr(path, simple=True, separator="."), math.prod(spec.shape)
        sharding = sharding_of(mesh, name, spec.shape, spec.axes)
        total += size
        if not any("fsdp" in (axes or ()) for axes in sharding.spec):
            whole[name] = size
        return sharding

    shardings = jax.tree_util.tree_map_with_path(place, specs, is_leaf=lambda node: hasattr(node, "axes"))
    if mesh.shape["fsdp"] > 1 and sum(whole.values()) > max_whole_share * total:
        largest = ", ".join(sorted(whole, key=lambda name: -whole[name])[:3])
        raise UserError(
            f"mesh.fsdp = {mesh.shape['fsdp']}: {sum(whole.values()) / total:.1%} of the parameters' bytes would not "
            f"be split over it, at most {max_whole_share:.0%} may; the largest: {largest}. Let one of their axes lie "
            "along fsdp in RULES in jaxwiz/sharding/rules.py, or set mesh.fsdp to 1"
        )
    return shardings


def batch_shards(mesh_sizes: Mapping[str, int]) -> int:
    """Returns over how many devices the rows of a batch are split, of {mesh axis: size}."""
    return math.prod(mesh_sizes[axis] for axis in RULES["batch"])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how [B, T] token arrays lie on the mesh: rows over slice, data and fsdp, positions over context."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["length"]))


def activation_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how hidden states [B, T, D] lie on the mesh between layers: as their tokens do, each of them whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"], RULES["length"], None))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole, such as a scalar metric."""
    return NamedSharding(mesh, PartitionSpec())
