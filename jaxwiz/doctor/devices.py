"""What the devices can do: are they there, is a sum over all of them right, and how fast, is attention right."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxwiz.doctor.host import GIB, HostReport
from jaxwiz.files import UserError
from jaxwiz.model.attention_check import require_attention
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.sharding.devices import device_memory_bytes
from jaxwiz.sharding.mesh import AXES

_TIMES = 5


def look_at_devices(report: HostReport) -> None:
    """Notes which devices this process has, and what of the whole job it sees; starts their runtime."""
    local = jax.local_devices()
    report.devices = f"{len(local)} x {local[0].device_kind}"
    report.memory_gib = device_memory_bytes() / GIB
    slices = {getattr(device, "slice_index", 0) for device in jax.devices()}
    report.seen = f"{jax.process_count()} process(es), {jax.device_count()} device(s), {len(slices)} slice(s)"


def sum_over_all() -> str:
    """Returns how fast an all-reduce over all devices of the job is; all processes have to call it.

    The bandwidth is NCCL's "bus bandwidth": 2 (n-1)/n bytes leave and reach each device for every byte of the array.
    """
    devices = jax.devices()
    n = len(devices)
    if n == 1:
        return "one device"
    numbers = (1 if devices[0].platform == "cpu" else 16) * 2**20  # float32: 4 or 64 MiB a device
    mesh = Mesh(np.asarray(devices), ("all",))
    by_device = NamedSharding(mesh, PartitionSpec("all"))
    each = np.arange(n) % 256  # the sum stays exact in float32 on any pod
    spread = jax.jit(lambda: jnp.broadcast_to(jnp.float32(each)[:, None], (n, numbers)), out_shardings=by_device)
    parts = spread()
    add = jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh, PartitionSpec()))
    total = jax.block_until_ready(add(parts))
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        jax.block_until_ready(add(parts))
        seconds.append(time.perf_counter() - began)
    wrong = jnp.abs(total.addressable_data(0) - each.sum()).max()
    if float(wrong) != 0:
        return f"failed: a sum over {n} devices is wrong by up to {float(wrong):g}"
    moved = 2 * (n - 1) / n * 4 * numbers
    return f"{moved / min(seconds) / 1e9:.2f} GB/s"


def check_attention() -> str:
    """Returns the attention kernel that training would take here, and how far it is from the definition.

    Each process takes its own devices only, so that it is the wrong host that fails.
    """
    local = jax.local_devices()
    cpu = local[0].platform == "cpu"
    mesh = Mesh(np.asarray(local).reshape([len(local) if axis == "fsdp" else 1 for axis in AXES]), AXES)
    shape = AttentionShape(256 if cpu else 2048, 8, 2, 128, "float32" if cpu else "bfloat16")
    try:
        chosen = choose_attention("auto", shape, mesh)
        return f"{chosen.name}, {max(require_attention(chosen, shape, mesh).largest.values()):.0e}"
    except UserError as error:
        return f"failed: {error}"
