"""How much memory this process takes, as the operating system counts it."""

import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Returns the bytes that this process occupies now; where the system does not tell, the most it ever did."""
    return _from_status("VmRSS")


def peak_bytes() -> int:
    """Returns the most bytes that this process ever occupied."""
    return _from_status("VmHWM")


def _from_status(key: str) -> int:
    status = Path("/proc/self/status")
    if status.exists():  # Linux; unlike getrusage this does not count the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
