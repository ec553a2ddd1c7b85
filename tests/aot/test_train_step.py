"""The real train step compiles for TPUs that are not here: with the splash kernel, sharded, within a chip's memory.

Needs the compiler of Cloud TPUs, `pip install libtpu` in the version that the installed JAX names; no TPU. It holds for
what the compiler decides (does the kernel lower, does the step fit), not for speed or results.

    JAX_PLATFORMS=cpu python -m pytest -s -m aot tests/aot
"""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from jaxwiz.checkpoint.train_state import abstract_like
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.config import LlamaConfig
from jaxwiz.model.params import param_specs
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.config import ComputeConfig, OptimizerConfig
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import abstract_state, state_shardings
from jaxwiz.train.step import make_train_step

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"),
]

GIB = 2**30
SMOLLM2 = LlamaConfig(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    rope_theta=100_000.0,
    max_positions=8192,
    tie_embeddings=True,
)
LLAMA_7B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=4096,
    intermediate_size=11_008,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    max_positions=4096,
)


def topology_mesh(name: str, sizes: tuple[int, int, int]) -> Mesh:
    """A mesh of absent devices; topologies are named by generation and shape, such as v5e:2x4."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else the compiler asks a cloud's metadata server
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return Mesh(np.array(devices).reshape(sizes), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def compiled_step(model: LlamaConfig, mesh: Mesh, rows: int, length: int, remat: str) -> jax.stages.Compiled:
    compute = ComputeConfig(dtype="bfloat16", remat=remat)
    assert choose_attention("auto", AttentionShape.of(model, length, "bfloat16"), mesh).name == "splash"
    optimizer = make_optimizer(OptimizerConfig(), 10, param_specs(model))
    shardings = state_shardings(model, optimizer, mesh)
    state = abstract_like(abstract_state(model, optimizer), shardings)
    row = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=batch_sharding(mesh))
    batch = dict.fromkeys(("tokens", "loss_mask", "segment_ids", "positions"), row)
    schedule = learning_rate_schedule(OptimizerConfig(), 10)
    return make_train_step(model, compute, 1, optimizer, schedule, shardings, mesh).lower(state, batch).compile()


def device_bytes(compiled: jax.stages.Compiled) -> int:
    """Bytes of one device's memory: the state, which results share by donation, the batch and temporary buffers."""
    analysis = compiled.memory_analysis()
    shared = analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + analysis.output_size_in_bytes - shared + analysis.temp_size_in_bytes


@pytest.mark.parametrize("remat", ["none", "save_attention", "full", "offload"])
def test_a_small_model_compiles_under_every_policy(remat: str):
    compiled = compiled_step(SMOLLM2, topology_mesh("v5e:2x4", (1, 8, 1)), rows=8, length=1024, remat=remat)
    print(f"SmolLM2-135M, v5e:2x4, 8 x 1,024, remat {remat}: {device_bytes(compiled) / GIB:.2f} GiB a device")
    assert compiled.as_text().count("splash_mha_fwd") > 0
    assert device_bytes(compiled) < 16 * GIB


@pytest.mark.parametrize(("topology", "sizes", "rows"), [("v5e:4x4", (1, 16, 1), 16), ("v5e:4x4", (1, 8, 2), 16)])
def test_a_7b_model_fits_sixteen_v5e_chips(topology: str, sizes: tuple[int, int, int], rows: int):
    compiled = compiled_step(LLAMA_7B, topology_mesh(topology, sizes), rows=rows, length=2048, remat="full")
    print(
        f"Llama 7B, {topology} as {sizes}, {rows} x 2,048, remat full: {device_bytes(compiled) / GIB:.2f} GiB a device"
    )
    assert compiled.as_text().count("splash_mha_fwd") > 0
    assert device_bytes(compiled) < 16 * GIB
