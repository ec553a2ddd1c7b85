"""Run by tests in a process of its own: the train stage, struck at a moment that is named.

    python -m tests.faults.killed_training CONFIG.yaml [MOMENT NUMBER DELAY_S]

Killed with SIGKILL: "step", DELAY_S after the batch of this life's NUMBER-th step was taken; "writing", DELAY_S after
its NUMBER-th save began to write; "commit", when the files of that save are written, right before it is completed;
"committed", right after. Asked by SIGTERM: "sigterm", DELAY_S after its NUMBER-th batch; "heldout", at the NUMBER-th
batch of a held-out loss. "hang": its feed never yields the NUMBER-th batch. Without a moment it runs to its end. Each
batch's tokens are noted in `batches.jsonl`. The variable ALLOW_CHANGE is what --allow-change names.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxwiz.checkpoint import record
from jaxwiz.checkpoint.train_state import TrainCheckpoints
from jaxwiz.config import load_config
from jaxwiz.files import UserError
from jaxwiz.sharding.processes import join
from jaxwiz.train import loop
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.job import TrainJob
from jaxwiz.train.run import run
from jaxwiz.train.speed import Peak


def kill_after(delay_s: float, number: signal.Signals = signal.SIGKILL) -> None:
    def wait_and_kill() -> None:
        time.sleep(delay_s)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_kill, daemon=True).start()


def strike_at_batches(moment: str, number: int, delay_s: float) -> None:
    original, original_heldout = TrainJob.train_batches, TrainJob.heldout_batches

    @contextlib.contextmanager
    def struck(job: TrainJob, step: int) -> Iterator[Any]:
        with original(job, step) as batches:

            def each() -> Iterator[Any]:
                for taken, batch in enumerate(batches, start=1):
                    if taken == number and moment == "hang":
                        wait_for_what_never_comes()
                    if taken == number and moment in ("step", "sigterm"):
                        kill_after(delay_s, signal.SIGKILL if moment == "step" else signal.SIGTERM)
                    yield batch

            yield each()

    @contextlib.contextmanager
    def struck_heldout(job: TrainJob) -> Iterator[Any]:
        with original_heldout(job) as batches:

            def each() -> Iterator[Any]:
                for taken, batch in enumerate(batches, start=1):
                    if taken == number and moment == "heldout":
                        os.kill(os.getpid(), signal.SIGTERM)
                        time.sleep(0.1)  # until the thread that takes it did
                    yield batch

            yield each()

    TrainJob.train_batches, TrainJob.heldout_batches = struck, struck_heldout  # type: ignore[method-assign]


def wait_for_what_never_comes() -> None:
    time.sleep(3600)


def note_batches(out: Path) -> None:
    original = TrainJob.train_batches

    @contextlib.contextmanager
    def noted(job: TrainJob, step: int) -> Iterator[Any]:
        with original(job, step) as batches, open(out / "batches.jsonl", "a") as file:

            def each() -> Iterator[Any]:
                for taken, batch in enumerate(batches, start=1):
                    shards = batch["tokens"].addressable_shards
                    whole = {str(shard.index): np.asarray(shard.data) for shard in shards}
                    tokens = np.concatenate([whole[key] for key in sorted(whole, key=_first_row)])
                    digest = hashlib.sha256(np.ascontiguousarray(tokens)).hexdigest()
                    file.write(json.dumps([step + taken, digest]) + "\n")
                    file.flush()
                    yield batch

            yield each()

    TrainJob.train_batches = noted  # type: ignore[method-assign]


def _first_row(index: str) -> int:
    start = index.split("(")[2].split(",")[0]
    return 0 if start == "None" else int(start)


def kill_in_save(moment: str, number: int, delay_s: float) -> None:
    original_complete, original_record = TrainCheckpoints._complete, record.complete
    saves = 0

    def complete_state(checkpoints: TrainCheckpoints, step: int, metrics: dict[str, float]) -> None:
        nonlocal saves
        saves += 1
        if moment == "writing" and saves == number:
            kill_after(delay_s)
        original_complete(checkpoints, step, metrics)

    def complete_record(*arguments: Any) -> None:
        if moment == "commit" and saves == number:
            os.kill(os.getpid(), signal.SIGKILL)
        original_record(*arguments)
        if moment == "committed" and saves == number:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainCheckpoints._complete = complete_state  # type: ignore[method-assign]
    record.complete = complete_record


def main(arguments: list[str]) -> None:
    config = load_config(Path(arguments[0]), TrainConfig)
    moment, number, delay_s = (arguments[1], int(arguments[2]), float(arguments[3])) if arguments[1:] else ("", 0, 0.0)
    loop.peak_of_devices = lambda _: Peak(1e9, "not measured in tests")
    # The same programs each life; what the cache holds is the compiled code, so that losses are the same bits.
    jax.config.update("jax_compilation_cache_dir", str(config.out.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    processes = join()
    config.out.mkdir(parents=True, exist_ok=True)
    strike_at_batches(moment, number, delay_s)
    if processes.count == 1:  # of several, none has the whole batch
        note_batches(config.out)
    kill_in_save(moment, number, delay_s)
    try:
        run(config, allow_change=os.environ.get("ALLOW_CHANGE", "").split())
    except UserError as error:  # as the command tells it
        print(error, file=sys.stderr)
        processes.fail(error, error.exit_code)
        sys.exit(error.exit_code)
    processes.leave()


if __name__ == "__main__":
    main(sys.argv[1:])
