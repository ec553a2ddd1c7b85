"""What the tests give a cluster to do. Here and not in a test, so that nodes can import it by name."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from jaxwiz.files import UserError

Numbers = Iterator[tuple[int, int]]


def square(seconds: float, numbers: Numbers) -> Numbers:
    """Squares numbers, `seconds` each."""
    for key, number in numbers:
        time.sleep(seconds)
        yield key, number**2


def square_and_sign(folder: Path, seconds: float, numbers: Numbers) -> Iterator[tuple[int, tuple[int, str, int]]]:
    """Squares numbers, and says on which node and in which process; leaves a line for each that was begun."""
    node = node_id()
    for key, number in numbers:
        with open(folder / str(os.getpid()), "a") as file:
            file.write(f"{key}\n")
        time.sleep(seconds)
        yield key, (number**2, node, os.getpid())


def node_id() -> str:
    """Returns the id of the node that this worker is on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def die_at(fatal: int, numbers: Numbers) -> Numbers:
    """Squares numbers, but one kills its process."""
    for key, number in numbers:
        if key == fatal:
            os._exit(1)
        yield key, number**2


def refuse(numbers: Numbers) -> Numbers:
    """Finds that this machine lacks something."""
    raise UserError("the flux capacitor is missing; install one")
    yield from numbers


def fail(numbers: Numbers) -> Numbers:
    """Has a bug."""
    for key, number in numbers:
        yield key, 1 // (number - 5)
