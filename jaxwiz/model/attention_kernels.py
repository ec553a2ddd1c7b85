"""Which attention kernel a run uses, by name or by device.

| name | runs on | rows split (`mesh.context`) | what it is |
|---|---|---|---|
| reference | anywhere | yes | the definition: dense scores, the whole square |
| xla | anywhere | yes, the whole square | blocks of queries, each with the keys up to its end; the fallback |
| splash | TPU | yes | JAX's Pallas kernel; skips blocks beyond the diagonal |
| cudnn | NVIDIA GPU | yes, the whole square | cuDNN's fused kernel, segments as a mask |
| pallas | NVIDIA GPU | no | `model/flash.py`; skips blocks beyond the diagonal and of earlier segments |

All of them do grouped-query attention without repeating keys. Where rows are split, `model/attention_context.py` runs
them on a device's queries and the whole row's keys.

A kernel that cannot do a run's shape says so by name: asked for by name it is an error, under "auto" the next one is
taken and the reason kept for whoever reports the choice. Whether a kernel computes the right thing is not taken on
trust either: see `model/attention_check.py`.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.files import UserError
from jaxwiz.model.attention import PackedAttention, attention, blocked_attention, reference_attention
from jaxwiz.model.attention_context import (
    ContextKernel,
    blocked_masked_attention,
    masked_over_context,
    split_over_context,
)
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.flash import flash_attention
from jaxwiz.model.splash import LANES, splash_attention, splash_over_context
from jaxwiz.sharding.rules import RULES, mesh_axes


@dataclasses.dataclass(frozen=True)
class AttentionShape:
    """What a kernel has to serve.

    Attributes:
      length: T, tokens in a row.
      num_heads: N.
      num_kv_heads: K.
      head_dim: H.
      dtype: of q, k and v, "float32" or "bfloat16".
      context: devices over which a row's positions are split.
    """

    length: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str
    context: int = 1

    @classmethod
    def of(cls, model: ModelConfig, length: int, dtype: str, context: int = 1) -> "AttentionShape":
        """Returns the shape that rows of `length` tokens have in a model."""
        return cls(length, model.num_heads, model.num_kv_heads, model.head_dim, dtype, context)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An implementation of packed attention.

    Attributes:
      run: the function.
      refusal: why it cannot serve a shape on a platform ("cpu", "gpu", "tpu"), or None.
      partitioned: whether the compiler can split it over devices; if not, each device runs it on its own part.
      over_context: (T, query heads of one device, mesh) -> the same for rows whose positions are split; None: it
        cannot do those.
    """

    run: PackedAttention
    refusal: Callable[[AttentionShape, str], str | None] = lambda shape, platform: None
    partitioned: bool = False
    over_context: Callable[[int, int, Mesh], ContextKernel] | None = None


@dataclasses.dataclass(frozen=True)
class ChosenAttention:
    """A kernel chosen for a run.

    Attributes:
      name: its name in `KERNELS`.
      run: the function, split over the mesh where it has to be.
      passed_over: what "auto" would have preferred, as "name: reason".
    """

    name: str
    run: PackedAttention
    passed_over: tuple[str, ...] = ()


def cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns attention over packed rows by cuDNN's fused kernel; see `PackedAttention`.

    cuDNN knows nothing of segments through this door: they go in as a mask [B, 1, T, T], causality as its own option.
    """
    same_segment = None if segment_ids is None else (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=same_segment, is_causal=True, implementation="cudnn")


def cudnn_masked_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns attention under a mask bool [B, T, S] by cuDNN's fused kernel, [B, T, N, H]."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="cudnn")


def _splash_refusal(shape: AttentionShape, platform: str) -> str | None:
    if platform != "tpu":
        return f"it is for TPUs, and this is a {platform}"
    if shape.context > 1 and shape.length % (2 * shape.context * LANES):
        return (
            f"sequence_length = {shape.length}: split over mesh.context = {shape.context} it needs a multiple of "
            f"{2 * shape.context * LANES}"
        )
    return None


def _cudnn_refusal(shape: AttentionShape, platform: str) -> str | None:
    if platform != "gpu":
        return f"it is for NVIDIA GPUs, and this is a {platform}"
    if shape.dtype != "bfloat16":
        return f"it computes in bfloat16, not {shape.dtype}; set compute.dtype = 'bfloat16'"
    if shape.head_dim % 8 or shape.head_dim > 128:
        return f"head_dim = {shape.head_dim}: it needs a multiple of 8, at most 128"
    if shape.length % 2:
        return f"sequence_length = {shape.length}: with segments it needs an even length"
    return None


def _pallas_refusal(shape: AttentionShape, platform: str) -> str | None:
    if platform != "gpu":
        return f"it is for NVIDIA GPUs, and this is a {platform}"
    if shape.head_dim > 256:
        return f"head_dim = {shape.head_dim}: blocks of more than 256 do not fit on the chip"
    return None


KERNELS: dict[str, Kernel] = {
    "reference": Kernel(
        reference_attention,
        partitioned=True,
        over_context=lambda length, heads, mesh: masked_over_context(attention, length, mesh),
    ),
    "xla": Kernel(
        blocked_attention,
        partitioned=True,
        over_context=lambda length, heads, mesh: masked_over_context(blocked_masked_attention, length, mesh),
    ),
    "splash": Kernel(splash_attention, _splash_refusal, over_context=splash_over_context),
    "cudnn": Kernel(
        cudnn_attention,
        _cudnn_refusal,
        over_context=lambda length, heads, mesh: masked_over_context(cudnn_masked_attention, length, mesh),
    ),
    "pallas": Kernel(flash_attention, _pallas_refusal),
}

_PREFERRED = {"tpu": ("splash", "xla"), "gpu": ("cudnn", "pallas", "xla")}


def choose_attention(name: str, shape: AttentionShape, mesh: Mesh | None = None) -> ChosenAttention:
    """Returns the kernel called `name`, or under "auto" the first of the platform's that can serve `shape`.

    Args:
      name: a key of `KERNELS`, or "auto".
      shape: what it has to serve.
      mesh: the devices, with rows, positions and heads split over them as `sharding/rules.py` says; None: the default
        device. Where positions are split, the kernel takes rows in context order (`sharding/context.py`).

    Raises:
      UserError: the kernel asked for cannot serve the shape on this platform; says why.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    if mesh is not None:
        shape = dataclasses.replace(shape, context=mesh.shape["context"])
    _require_even_split(shape)
    candidates = _PREFERRED.get(platform, ("xla",)) if name == "auto" else (name,)
    passed_over: list[str] = []
    for candidate in candidates:
        kernel = KERNELS[candidate]
        reason = kernel.refusal(shape, platform)
        if reason is None and shape.context > 1 and kernel.over_context is None:
            reason = f"it needs whole rows, and mesh.context = {shape.context} splits them"
        if reason is None:
            return ChosenAttention(candidate, _on_mesh(kernel, shape, mesh), tuple(passed_over))
        passed_over.append(f"{candidate}: {reason}")
    raise UserError(f"compute.attention = {name!r}: cannot serve this run, {reason}; or use 'auto'")


def _require_even_split(shape: AttentionShape) -> None:
    if shape.context > 1 and shape.length % (2 * shape.context):
        raise UserError(
            f"sequence_length = {shape.length}: must be a multiple of 2 x mesh.context = {2 * shape.context}, so that "
            "each device gets an early and a late part of every row; pack rows of another length or change the mesh"
        )


def _on_mesh(kernel: Kernel, shape: AttentionShape, mesh: Mesh | None) -> PackedAttention:
    if mesh is not None and kernel.over_context is not None and shape.context > 1:
        heads = shape.num_heads // math.prod(mesh.shape[axis] for axis in RULES["heads"])
        return split_over_context(mesh, kernel.over_context(shape.length, heads, mesh))
    return kernel.run if mesh is None or kernel.partitioned else split_over(mesh, kernel.run)


def split_over(mesh: Mesh, run: PackedAttention) -> PackedAttention:
    """Returns `run` with each device of a mesh on its own whole rows and heads; attention crosses neither.

    Args:
      mesh: axes as `sharding/mesh.py` names them.
      run: a kernel that the compiler cannot split by itself.
    """
    rows = RULES["batch"]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
        q_spec = PartitionSpec(rows, None, RULES["heads"], None)
        kv_spec = PartitionSpec(rows, None, mesh_axes("kv_heads", k.shape[2]), None)
        # check_vma: kernels do not say over which axes their results vary.
        return jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(q_spec, kv_spec, kv_spec, PartitionSpec(rows, None)),
            out_specs=q_spec,
            check_vma=False,
        )(q, k, v, segment_ids)

    return attend
