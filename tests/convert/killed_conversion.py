"""Run by tests in a process of its own: a conversion that stops for ever when half of its weights are written.

python killed_conversion.py CONFIG.yaml    prints "half" and waits to be killed
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from jaxwiz.config import load_config
from jaxwiz.convert.config import ConvertConfig
from jaxwiz.convert.flow import Flow
from jaxwiz.convert.run import run

original = Flow.run


def run_half(self: Flow, title: str, reader: Any, blocks: list, move: Any) -> None:
    lock = threading.Lock()
    written = 0

    def move_half(block: Any, rows: Any) -> None:
        nonlocal written
        move(block, rows)
        with lock:
            written += 1
            half = written == len(blocks) // 2
        if half:
            print("half", flush=True)
            time.sleep(600)

    original(self, title, reader, blocks, move_half)


Flow.run = run_half  # type: ignore[method-assign]
run(load_config(Path(sys.argv[1]), ConvertConfig))
