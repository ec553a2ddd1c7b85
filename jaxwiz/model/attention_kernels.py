"""Which attention kernel a run uses, by name or by device.

| name | runs on | grouped-query | what it is |
|---|---|---|---|
| reference | anywhere | yes | the definition: dense scores, the whole square |
| xla | anywhere | yes | blocks of queries, each with the keys up to its end; the fallback |
| splash | TPU | yes | JAX's Pallas kernel; skips blocks beyond the diagonal |
| cudnn | NVIDIA GPU | yes | cuDNN's fused kernel, segments as a mask |
| pallas | NVIDIA GPU | yes | `model/flash.py`; skips blocks beyond the diagonal and of earlier segments |

A kernel that cannot do a run's shape says so by name: asked for by name it is an error, under "auto" the next one is
taken and the reason kept for whoever reports the choice. Whether a kernel computes the right thing is not taken on
trust either: see `model/attention_check.py`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxwiz.files import UserError
from jaxwiz.model.attention import PackedAttention, blocked_attention, reference_attention
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.flash import flash_attention
from jaxwiz.model.remat import ATTENTION
from jaxwiz.sharding.rules import RULES

_TPU_LANES = 128  # the kernel's blocks are multiples of it
_SPLASH_BLOCKS = (512, 256, 128)  # queries and keys of one visit; larger ones re-read less


@dataclasses.dataclass(frozen=True)
class AttentionShape:
    """What a kernel has to serve.

    Attributes:
      length: T, tokens in a row.
      num_heads: N.
      num_kv_heads: K.
      head_dim: H.
      dtype: of q, k and v, "float32" or "bfloat16".
    """

    length: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    dtype: str

    @classmethod
    def of(cls, model: LlamaConfig, length: int, dtype: str) -> "AttentionShape":
        """Returns the shape that rows of `length` tokens have in a model."""
        return cls(length, model.num_heads, model.num_kv_heads, model.head_dim, dtype)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """An implementation of packed attention.

    Attributes:
      run: the function.
      refusal: why it cannot serve a shape on a platform ("cpu", "gpu", "tpu"), or None.
      partitioned: whether the compiler can split it over devices; if not, each device runs it on its own part.
    """

    run: PackedAttention
    refusal: Callable[[AttentionShape, str], str | None] = lambda shape, platform: None
    partitioned: bool = False


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


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None, *, interpret: bool = False
) -> jax.Array:
    """Returns attention over packed rows by JAX's splash kernel for TPUs; see `PackedAttention`.

    Any T: rows are filled up at their end, where causality hides what was added. k and v are not repeated.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    T, N, H = q.shape[1:]
    filled = T + -T % _TPU_LANES
    block = next(size for size in _SPLASH_BLOCKS if filled % size == 0)
    causal = splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((filled, filled))] * N)
    kernel = splash_attention_kernel.make_splash_mha(
        causal,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)  # the kernel does not scale
    q, k, v = (jnp.pad(x, ((0, 0), (0, filled - T), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))
    if segment_ids is None:
        out = jax.vmap(kernel)(q, k, v)
    else:
        filled_ids = jnp.pad(segment_ids, ((0, 0), (0, filled - T)))
        out = jax.vmap(kernel)(q, k, v, splash_attention_kernel.SegmentIds(filled_ids, filled_ids))
    return out.swapaxes(1, 2)[:, :T]


def cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array | None) -> jax.Array:
    """Returns attention over packed rows by cuDNN's fused kernel; see `PackedAttention`.

    cuDNN knows nothing of segments through this door: they go in as a mask [B, 1, T, T], causality as its own option.
    """
    same_segment = None if segment_ids is None else (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=same_segment, is_causal=True, implementation="cudnn")


def _splash_refusal(shape: AttentionShape, platform: str) -> str | None:
    return None if platform == "tpu" else f"it is for TPUs, and this is a {platform}"


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
    "reference": Kernel(reference_attention, partitioned=True),
    "xla": Kernel(blocked_attention, partitioned=True),
    "splash": Kernel(splash_attention, _splash_refusal),
    "cudnn": Kernel(cudnn_attention, _cudnn_refusal),
    "pallas": Kernel(flash_attention, _pallas_refusal),
}

_PREFERRED = {"tpu": ("splash", "xla"), "gpu": ("cudnn", "pallas", "xla")}


def choose_attention(name: str, shape: AttentionShape, mesh: Mesh | None = None) -> ChosenAttention:
    """Returns the kernel called `name`, or under "auto" the first of the platform's that can serve `shape`.

    Args:
      name: a key of `KERNELS`, or "auto".
      shape: what it has to serve.
      mesh: the devices, with rows and heads split over them as `sharding/rules.py` says; None: the default device.

    Raises:
      UserError: the kernel asked for cannot serve the shape on this platform; says why.
    """
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    candidates = _PREFERRED.get(platform, ("xla",)) if name == "auto" else (name,)
    passed_over: list[str] = []
    for candidate in candidates:
        kernel = KERNELS[candidate]
        reason = kernel.refusal(shape, platform)
        if reason is None:
            run = kernel.run if mesh is None or kernel.partitioned else split_over(mesh, kernel.run)
            return ChosenAttention(candidate, run, tuple(passed_over))
        passed_over.append(f"{candidate}: {reason}")
    raise UserError(f"compute.attention = {name!r}: cannot serve this run, {reason}; or use 'auto'")


def split_over(mesh: Mesh, run: PackedAttention) -> PackedAttention:
    """Returns `run` with each device of a mesh on its own rows and heads; attention crosses neither.

    Args:
      mesh: axes as `sharding/mesh.py` names them.
      run: a kernel that the compiler cannot split by itself.
    """
    rows, heads, kv_heads = RULES["batch"], RULES["heads"], RULES["kv_heads"]
    q_spec = PartitionSpec(rows, None, heads, None)
    kv_spec = PartitionSpec(rows, None, kv_heads, None)
    # check_vma: kernels do not say over which axes their results vary.
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(q_spec, kv_spec, kv_spec, PartitionSpec(rows, None)),
        out_specs=q_spec,
        check_vma=False,
    )
