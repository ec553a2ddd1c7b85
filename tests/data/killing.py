"""Runs the data stage in processes that are killed (SIGKILL) at many moments, and finishes what they leave.

    python tests/data/killing.py CONFIG.yaml FOLDER

CONFIG is run undisturbed into FOLDER/whole, then into other folders: once for every second file that a run renames,
killed just before it does, and killed at random moments until it gets through. Prints a line of JSON: how many runs
were killed, and which files ended other than in `whole`. Modules are imported once, and every run is a fork.
"""

import dataclasses
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import array_record.python.array_record_module  # noqa: F401  (imported before forking, to save time)
import tensorflow_datasets as tfds

import jaxwiz.clean.report
import jaxwiz.clean.run  # noqa: F401  (likewise)
from jaxwiz.config import load_config
from jaxwiz.data import run as stage
from jaxwiz.data import shards
from jaxwiz.data.config import DataConfig
from jaxwiz.files import hash_tree

RANDOM_KILLS = 5


def run_in_fork(
    config: DataConfig, prepare: Callable[[], None] = lambda: None, kill_after_s: float | None = None
) -> bool:
    """Runs the stage in a process of its own; returns whether it got through."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        prepare()
        stage.run(config)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "a run failed by itself"
    return True


def die_before_rename(number: int) -> None:
    """Has this process killed when it is about to rename a file or folder for the `number`-th time, from 1."""
    left = number

    def counted(rename: Callable[..., None]) -> Callable[..., None]:
        def rename_or_die(*paths: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*paths)

        return rename_or_die

    os.rename, os.replace = counted(os.rename), counted(os.replace)  # type: ignore[assignment]


def main(config: DataConfig, folder: Path) -> None:
    began = time.monotonic()
    assert run_in_fork(dataclasses.replace(config, out=folder / "whole"))
    seconds = time.monotonic() - began
    wanted = hash_tree(folder / "whole")
    kills, different = {"at a rename": 0, "at random": 0}, []

    def compare(out: Path) -> None:
        found = hash_tree(out)
        different.extend(f"{out.name}/{name}" for name in wanted.keys() | found if wanted.get(name) != found.get(name))

    number = 1
    while True:
        at_rename = dataclasses.replace(config, out=folder / f"rename-{number}")
        if run_in_fork(at_rename, lambda: die_before_rename(number)):  # noqa: B023  (called at once)
            break
        kills["at a rename"] += 1
        assert run_in_fork(at_rename)
        compare(at_rename.out)
        number += 2
    draw = random.Random(0)
    while kills["at random"] < RANDOM_KILLS:
        at_random = dataclasses.replace(config, out=folder / f"random-{kills['at random']}")
        while not run_in_fork(at_random, kill_after_s=draw.uniform(0, seconds)):
            kills["at random"] += 1
        compare(at_random.out)
    print(json.dumps({"kills": kills, "different": different}))


if __name__ == "__main__":
    shards._serializer(8), tfds.folder_dataset, tfds.core.ShardedFileTemplate  # TFDS imports its parts when asked for
    stage.ROWS_PER_BLOCK = 32  # type: ignore[attr-defined]
    main(load_config(Path(sys.argv[1]), DataConfig), Path(sys.argv[2]))
