"""Programs on several fake CPU devices, which JAX has to be told of before it starts: in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_on_eight_devices(*arguments: str) -> str:
    """Returns what `python ARGUMENTS` prints on eight devices; fails where it does, or where XLA gives up a sharding.

    NPROC: XLA runs the devices on a pool of as many threads as there are cores, and a device that waits for the others
    in a collective operation blocks one of them.
    """
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "NPROC": "64"}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Involuntary full rematerialization" not in done.stderr, done.stderr
    return done.stdout
