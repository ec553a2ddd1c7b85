"""Steps compiled for absent TPUs, each in a process of its own, one after another on a machine.

libtpu, the compiler, serves one process at a time, and so do we: a lock file beside its own makes plans wait for each
other, and says for whom. What XLA prints goes to file descriptors and to libtpu's own log files, which is why it is
another process: both are read, and the warnings in them that mean wasted work or memory are errors here.
"""

import contextlib
import fcntl
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxwiz import console
from jaxwiz.files import UserError
from jaxwiz.plan.chips import GIB
from jaxwiz.plan.request import Compiled, OutOfMemory, Request

LOCK = Path(tempfile.gettempdir()) / "jaxwiz-libtpu.lock"
_LIBTPU_LOCK = Path(tempfile.gettempdir()) / "libtpu_lockfile"
_SECONDS_BETWEEN_TRIES = 5.0
_MOST_TRIES = 120  # ten minutes

# What XLA says when an array has to be made whole on every device to change how it lies: work and memory for nothing.
_WASTE = re.compile(r"[^\n]*(?:[Ii]nvoluntary full rematerialization|will be replicated|fully replicat)[^\n]*")
_HELD = re.compile(r"libtpu_lockfile|TPU is already in use|libtpu.{0,40}already")
_NEEDS = (
    re.compile(r"([\d.]+)([KMGT])\S* of ([\d.]+)([KMGT]) hbm"),
    re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
)
_UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


# No TPU is looked for, no cloud's metadata server is asked, and warnings are not left out.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "TPU_MIN_LOG_LEVEL": "0",
}


class PlanError(UserError):
    """A plan that cannot be made; the message says what is missing or wrong, and the remedy."""


def require_libtpu() -> None:
    """Returns if the TPU compiler is installed.

    Raises:
      PlanError: it is not; says how to install it.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise PlanError(
            "libtpu, the compiler for TPUs, is not installed here; it needs no TPU: pip install 'jaxwiz[plan]', best "
            "in an environment of its own (make .venv-aot/.ready): where it is, every start of JAX looks for TPUs"
        )


def compile_step(request: Request) -> Compiled | OutOfMemory:
    """Returns the compiled step of a request, or what the compiler says where it does not fit.

    Raises:
      UserError: the recipe does not fit the mesh or the topology, or XLA warns of waste.
    """
    require_libtpu()
    with tempfile.TemporaryDirectory(prefix="jaxwiz-plan-") as scratch, _one_at_a_time():
        folder = Path(scratch)
        (folder / "request.pickle").write_bytes(pickle.dumps(request))
        for attempt in range(_MOST_TRIES):
            error, log = _run_worker(folder)
            if not _HELD.search(error or ""):
                break
            if attempt == 0:
                console.say(f"plan: another process holds libtpu ({_LIBTPU_LOCK}); waiting until it ends")
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            raise PlanError(f"another process still holds libtpu ({_LIBTPU_LOCK}); end it, and plan again")
        warnings = sorted({line.strip() for line in _WASTE.findall(log)})
        if error is None and warnings:
            raise PlanError(
                "XLA rebuilds whole arrays on every device to change how they lie, which wastes time and memory; other "
                "mesh sizes or sharding rules avoid it:\n  " + "\n  ".join(line[:600] for line in warnings)
            )
        if error is None:
            return pickle.loads((folder / "compiled.pickle").read_bytes())
    return _explained(error, log)


def _explained(error: str, log: str) -> OutOfMemory:
    """Returns what an error says of memory; raises it as the user's fault where it says of something else."""
    if "RESOURCE_EXHAUSTED" in error and "hbm" in error.lower():
        return OutOfMemory(error, _missing_bytes(error))
    kind, _, message = error.partition(": ")
    if kind.endswith(("ConfigError", "UserError")):
        raise PlanError(message)
    raise PlanError(f"the step does not compile: {error[:3000]}\n{log[-2000:] if not error else ''}".rstrip())


def _missing_bytes(error: str) -> int:
    """Returns how much memory an error says is missing, 0 where it gives no sizes."""
    for pattern in _NEEDS:
        match = pattern.search(error)
        if match:
            need, need_unit, have, have_unit = match.groups()
            return int(float(need) * _UNITS[need_unit] - float(have) * _UNITS[have_unit])
    return 0


def _run_worker(folder: Path) -> tuple[str | None, str]:
    """Returns (why compiling failed or None, what the process printed)."""
    environment = os.environ | _ENVIRONMENT | {"TPU_LOG_DIR": str(folder)}
    (folder / "error.txt").unlink(missing_ok=True)
    command = [sys.executable, "-m", "jaxwiz.plan.worker", str(folder)]
    with open(folder / "log.txt", "wb") as log:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    logs = [folder / "log.txt", *sorted(folder.glob("tpu_driver.*.log.WARNING.*"))]
    printed = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)
    if done.returncode == 0:
        return None, printed
    with contextlib.suppress(FileNotFoundError):
        return (folder / "error.txt").read_text(encoding="utf-8"), printed
    return f"the compiling process ended with exit code {done.returncode}: {printed[-2000:]}", printed


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Holds this machine's lock of plans while the context lasts, and says whom it waits for."""
    with open(LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.say(f"plan: {_holder(file)} holds libtpu ({LOCK}); waiting until it ends")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return f"process {file.read().strip() or 'unknown'}"
