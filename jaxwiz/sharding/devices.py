"""What the devices of this process offer."""

import contextlib
import os
from pathlib import Path

import jax


def device_memory_bytes() -> int:
    """Returns the bytes of one device's memory, 0 if unknown; CPU devices share what machine or container allow."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        statistics = device.memory_stats() or {}
        return int(statistics.get("bytes_limit", 0))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total // jax.local_device_count()
