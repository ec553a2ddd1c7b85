"""What can be said of one host by itself: its software, its driver, its disk and the folder that results go to."""

import contextlib
import dataclasses
import importlib.metadata
import math
import shutil
import socket
import subprocess
from pathlib import Path

from etils import epath

from jaxwiz.files import free_bytes
from jaxwiz.sharding.agreement import code_facts

GIB = 2**30


@dataclasses.dataclass
class HostReport:
    """What one process found; texts beginning with "failed" name a fault.

    Attributes:
      process: its number.
      host: its name.
      versions: {package: version}, with a digest of jaxwiz's source.
      driver: of the accelerator, "none" without one.
      free_gib: of the folder's disk; infinite for a bucket.
      folder: whether it can be used as training uses it, and by what file system.
      clock_s: how far the clock is ahead of the middle one of all hosts.
      ports: whether the next process was reached.
      devices: of this process, such as "4 x TPU v5p".
      memory_gib: of one device.
      seen: processes, devices and slices of the whole job, as this process sees them.
      collective: a sum over all devices, and how fast.
      attention: the kernel, and how far it is from the definition.
    """

    process: int
    host: str
    versions: dict[str, str]
    driver: str
    free_gib: float
    folder: str = "not looked at"
    clock_s: float = 0.0
    ports: str = "alone"
    devices: str = "unknown"
    memory_gib: float = 0.0
    seen: str = "unknown"
    collective: str = "not run"
    attention: str = "not run"


def look_at_host(process: int, folder: epath.Path) -> HostReport:
    """Returns what needs neither the devices nor the other hosts.

    Args:
      process: the number of this one.
      folder: where results will go, or states: local, or such as gs://bucket/path.
    """
    return HostReport(
        process=process,
        host=socket.gethostname(),
        versions=code_facts(),
        driver=driver(),
        free_gib=math.inf if is_bucket(folder) else free_bytes(Path(folder)) / GIB,
    )


def driver() -> str:
    """Returns the version of NVIDIA's driver, or of libtpu, or "none"."""
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return "failed: nvidia-smi hangs"
        found = sorted(set(done.stdout.split()))
        if done.returncode or not found:
            return f"failed: nvidia-smi: {(done.stderr or done.stdout).strip()[:200]}"
        return f"NVIDIA {', '.join(found)}"
    try:
        return f"libtpu {importlib.metadata.version('libtpu')}"
    except importlib.metadata.PackageNotFoundError:
        return "none"


def is_bucket(folder: epath.Path) -> bool:
    """Says whether a folder is reached by URL, as states in `checkpoint_folder` may be, and not through a mount."""
    return "://" in str(folder)


def file_system(folder: epath.Path) -> str:
    """Returns the type of the file system that a folder lies on, "unknown" where the system does not tell."""
    if is_bucket(folder):
        return str(folder).partition("://")[0]
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    target = str(Path(folder).resolve())
    best = ("", "unknown")
    for line in lines:
        _, place, kind, *_ = line.split()
        below = target == place or target.startswith(place.rstrip("/") + "/")
        if below and len(place) >= len(best[0]):
            best = (place, kind)
    return best[1]


def try_folder(folder: epath.Path, token: str) -> str:
    """Returns "" if files and folders can be made, renamed and removed there as training does it, else the fault.

    Args:
      folder: where results will go.
      token: no other process's.
    """
    before, after = folder / f".doctor-{token}.partial", folder / f".doctor-{token}"
    try:
        before.mkdir(parents=True)
        (before / "file").write_text(token)
        before.rename(after)
        if (after / "file").read_text() != token:
            return "failed: what was written is not what is read"
    except Exception as error:  # a bucket's client has errors of its own, and may be missing
        return f"failed: {error if isinstance(error, OSError) else f'{type(error).__name__}: {error}'}"
    finally:
        for path in (before, after):
            with contextlib.suppress(Exception):
                path.rmtree(missing_ok=True)
    return ""
