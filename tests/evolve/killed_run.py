"""Runs the evolve stage in a process of its own that kills itself after its N-th journal write.

    python -m tests.evolve.killed_run CONFIG.yaml WRITES TORN

WRITES 0: it isn't killed. TORN: so many bytes of the last write have not reached the disk.
"""

import os
import signal
import sys
from pathlib import Path

from jaxwiz import files
from jaxwiz.config import load_config
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.run import run


def main(path: str, kill_after: int, torn: int) -> None:
    original, writes = files.flush_to_disk, 0

    def flush_to_disk(file) -> None:
        nonlocal writes
        original(file)
        writes += 1
        if writes == kill_after:
            os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - torn)
            os.kill(os.getpid(), signal.SIGKILL)

    files.flush_to_disk = flush_to_disk
    run(load_config(Path(path), EvolveConfig))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
