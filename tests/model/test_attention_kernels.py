"""Every kernel equals the definition, forward and backward; choices, refusals and the split over devices.

Kernels of absent devices run in Pallas' interpreter, which executes their steps; that they also compile for the device
is seen by lowering (GPU) and in tests/aot (TPU).
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from jaxwiz.files import UserError
from jaxwiz.model import attention
from jaxwiz.model.attention import PackedAttention, blocked_attention, packed_mask, reference_attention
from jaxwiz.model.attention_check import packed_segments
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention, cudnn_attention, cudnn_masked_attention
from jaxwiz.model.flash import flash_attention
from jaxwiz.model.splash import splash_attention
from tests.devices import run_on_eight_devices

INTERPRETED = {
    "splash": functools.partial(splash_attention, interpret=True),
    "pallas": functools.partial(flash_attention, interpret=True),
}


def random_inputs(B: int, T: int, N: int, K: int, H: int) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (B, T, n, H)) for key, n in zip(keys, (N, K, K, N), strict=True)]


def assert_equals_the_definition(kernel: PackedAttention, inputs: list[jax.Array], segments: jax.Array | None) -> None:
    q, k, v, out_gradient = inputs

    @functools.partial(jax.jit, static_argnums=0)
    def results(attend: PackedAttention) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(lambda q, k, v: attend(q, k, v, segments), q, k, v)
        return (out, *backward(out_gradient))

    for got, expected in zip(results(kernel), results(reference_attention), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


# Lengths that are no multiple of any block, groups of 1 to 3 heads, head sizes that are no power of two.
@pytest.mark.parametrize("shape", [(2, 200, 6, 2, 80), (1, 130, 2, 2, 64)], ids=str)
@pytest.mark.parametrize("name", INTERPRETED)
def test_a_kernel_equals_the_definition_on_packed_rows(name: str, shape: tuple[int, ...]):
    segments = jnp.asarray(packed_segments(*shape[:2]))
    assert_equals_the_definition(INTERPRETED[name], random_inputs(*shape), segments)


@pytest.mark.parametrize("name", INTERPRETED)
def test_a_kernel_without_segments_is_causal(name: str):
    assert_equals_the_definition(INTERPRETED[name], random_inputs(1, 150, 2, 1, 24), None)


@pytest.mark.parametrize(("length", "packed"), [(3, True), (9, True), (40, True), (40, False)])
def test_blocks_of_queries_equal_the_whole_square(length: int, packed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention, "_SMALLEST_BLOCK", 4)
    monkeypatch.setattr(attention, "_MOST_BLOCKS", 3)
    segments = jnp.asarray(packed_segments(2, length)) if packed else None
    assert_equals_the_definition(blocked_attention, random_inputs(2, length, 4, 2, 8), segments)


@pytest.mark.parametrize("packed", [True, False])
def test_what_cudnn_is_asked_for_is_attention_within_segments(packed: bool, monkeypatch: pytest.MonkeyPatch):
    general = jax.nn.dot_product_attention

    def without_cudnn(*arguments: jax.Array, implementation: str, **options: object) -> jax.Array:
        assert implementation == "cudnn"
        return general(*arguments, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", without_cudnn)
    segments = jnp.asarray(packed_segments(2, 48)) if packed else None
    assert_equals_the_definition(cudnn_attention, random_inputs(2, 48, 6, 2, 8), segments)

    def under_a_mask(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None) -> jax.Array:
        return cudnn_masked_attention(q, k, v, packed_mask(48, segments))

    assert_equals_the_definition(under_a_mask, random_inputs(2, 48, 6, 2, 8), segments)


@pytest.mark.parametrize(
    ("dtype", "N", "K", "H"), [("bfloat16", 9, 3, 64), ("bfloat16", 32, 8, 128), ("float32", 4, 4, 80)]
)
def test_the_gpu_kernels_lower_without_a_gpu(dtype: str, N: int, K: int, H: int):
    def total(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return flash_attention(q, k, v, segments).astype(jnp.float32).sum()

    shapes = [jax.ShapeDtypeStruct((2, 256, heads, H), dtype) for heads in (N, K, K)]
    gpu = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("all",), abstract_device=gpu)):
        traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(*shapes, jax.ShapeDtypeStruct((2, 256), jnp.int32))
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert all(name in program for name in ("flash_forward", "flash_q_gradient", "flash_kv_gradient"))


SHAPE = AttentionShape(length=512, num_heads=8, num_kv_heads=2, head_dim=64, dtype="bfloat16")


@pytest.mark.parametrize(
    ("platform", "changes", "chosen", "passed_over"),
    [
        ("cpu", {}, "xla", []),
        ("tpu", {}, "splash", []),
        ("gpu", {}, "cudnn", []),
        ("gpu", {"dtype": "float32"}, "pallas", ["cudnn: it computes in bfloat16, not float32"]),
        ("gpu", {"length": 511}, "pallas", ["cudnn: sequence_length = 511"]),
        ("gpu", {"head_dim": 512}, "xla", ["cudnn: head_dim = 512", "pallas: head_dim = 512"]),
    ],
)
def test_auto_takes_the_best_kernel_that_can_and_tells_what_it_passed_over(
    platform: str, changes: dict, chosen: str, passed_over: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    choice = choose_attention("auto", AttentionShape(**{**vars(SHAPE), **changes}))
    assert choice.name == chosen
    assert [reason.startswith(start) for reason, start in zip(choice.passed_over, passed_over, strict=True)] == [
        True
    ] * len(passed_over)


@pytest.mark.parametrize("name", ["splash", "cudnn", "pallas"])
def test_a_kernel_asked_for_by_name_is_refused_where_it_cannot_run(name: str):
    with pytest.raises(UserError, match=f"compute.attention = '{name}'.*this is a cpu.*'auto'"):
        choose_attention(name, SHAPE)


@pytest.mark.parametrize(
    ("name", "length", "platform", "message"),
    [
        (
            "pallas",
            512,
            "gpu",
            "'pallas': cannot serve this run, it needs whole rows, and mesh.context = 2 splits",
        ),
        ("splash", 1000, "tpu", "sequence_length = 1000: split over mesh.context = 2 it needs a multiple of 512"),
        ("xla", 510, "cpu", "sequence_length = 510: must be a multiple of 2 x mesh.context = 4"),
    ],
)
def test_what_cannot_be_split_over_the_context_is_refused(name: str, length: int, platform: str, message: str):
    mesh = SimpleNamespace(shape={"context": 2}, devices=np.array([SimpleNamespace(platform=platform)]))
    with pytest.raises(UserError, match=message):
        choose_attention(name, AttentionShape(**{**vars(SHAPE), "length": length}), mesh)  # type: ignore[arg-type]


def test_kernels_split_over_eight_devices_equal_the_definition():
    program = (
        "from tests.model.test_attention_kernels import INTERPRETED\n"
        "from jaxwiz.model.attention_check import require_attention\n"
        "from jaxwiz.model.attention_kernels import AttentionShape, ChosenAttention, split_over\n"
        "from jaxwiz.sharding.mesh import MeshConfig, make_mesh\n"
        "mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))\n"
        "for name, kernel in INTERPRETED.items():\n"
        "    shape = AttentionShape(130, 4, 2, 16, 'float32')\n"
        "    print(require_attention(ChosenAttention(name, split_over(mesh, kernel)), shape, mesh).allowed)\n"
    )
    assert run_on_eight_devices("-c", program).split() == ["0.0001"] * 2


def test_kernels_for_split_rows_equal_the_definition():
    program = (
        "from jaxwiz.model.attention_check import require_attention\n"
        "from jaxwiz.model.attention_context import split_over_context\n"
        "from jaxwiz.model.attention_kernels import AttentionShape, ChosenAttention, choose_attention\n"
        "from jaxwiz.model.splash import splash_over_context\n"
        "from jaxwiz.sharding.mesh import MeshConfig, make_mesh\n"
        "mesh = make_mesh(MeshConfig(data=2, context=2, tensor=2, fsdp=1))\n"
        "shape = AttentionShape(512, 4, 2, 16, 'float32')\n"
        "splash = split_over_context(mesh, splash_over_context(512, 2, mesh, interpret=True))\n"
        "chosen = [choose_attention(name, shape, mesh) for name in ('reference', 'xla')]\n"
        "for one in (*chosen, ChosenAttention('splash', splash)):\n"
        "    print(require_attention(one, shape, mesh).allowed)\n"
    )
    assert run_on_eight_devices("-c", program).split() == ["0.0001"] * 3
