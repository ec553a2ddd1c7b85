"""Batches arrive on the devices ahead of time, whole and in order; faults come out where the batch would have."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxwiz.data.feed import Batch, DatasetError, Feed
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import batch_sharding
from jaxwiz.train.feeding import BATCHES_AHEAD, THREADS, device_batches
from tests.train import feeding_process

NAMES = [field.name for field in dataclasses.fields(Batch)]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sharding() -> jax.sharding.NamedSharding:
    return batch_sharding(make_mesh(MeshConfig()))


class Tampered(Feed):
    """A feed that calls a function with each step before it reads."""

    def __init__(self, folder: Path, before: Callable[[int], None]) -> None:
        super().__init__(folder / "dataset", "train", 2, seed=0)
        self._before = before

    def batch(self, step: int, begin: int = 0, end: int | None = None) -> Batch:
        self._before(step)
        return super().batch(step, begin, end)


def test_the_batches_of_the_steps_asked_for_come_in_order(tiny_dataset, sharding):
    feed = Feed(tiny_dataset / "dataset", "train", 2, seed=0)
    with device_batches(feed, sharding, 3, 11, vocab_size=384) as batches:
        received = list(batches)
    assert len(received) == 8
    for step, batch in enumerate(received, start=3):
        expected = feed.batch(step)
        for name in NAMES:
            assert (batch[name].dtype, batch[name].sharding) == (np.int32, sharding)
            np.testing.assert_array_equal(batch[name], getattr(expected, name))


def test_it_reads_ahead_but_not_without_bound(tiny_dataset, sharding):
    asked: list[int] = []
    far_enough = threading.Event()

    def note(step: int) -> None:
        asked.append(step)
        if len(asked) >= BATCHES_AHEAD:
            far_enough.set()

    with device_batches(Tampered(tiny_dataset, note), sharding, 0, 1000, vocab_size=384) as batches:
        next(batches)
        assert far_enough.wait(30), "nothing is read before it is asked for"
        time.sleep(0.2)
        assert len(asked) <= BATCHES_AHEAD + 1
    time.sleep(0.1)
    after_the_end = len(asked)
    time.sleep(0.2)
    assert len(asked) == after_the_end <= BATCHES_AHEAD + 1 + THREADS


@pytest.mark.parametrize("fault", [OSError("the disk is gone"), KeyError("x"), DatasetError("row 3 cannot be read")])
def test_a_fault_in_the_background_comes_out_as_it_is(tiny_dataset, sharding, fault: Exception):
    def fail(step: int) -> None:
        if step == 3:
            raise fault

    received = 0
    with (
        pytest.raises(type(fault)) as caught,
        device_batches(Tampered(tiny_dataset, fail), sharding, 0, 20, vocab_size=384) as batches,
    ):
        for _ in batches:
            received += 1
    assert caught.value is fault
    assert received == 3


def test_a_feed_cannot_just_end(tiny_dataset, sharding):
    """StopIteration is what Python takes for the end of the data; from within a pipeline it is a fault."""

    def stop(step: int) -> None:
        if step == 3:
            raise StopIteration

    with (
        pytest.raises(RuntimeError, match="ended after 3 of 20 batches"),
        device_batches(Tampered(tiny_dataset, stop), sharding, 0, 20, vocab_size=384) as batches,
    ):
        list(batches)


def test_an_unknown_token_is_named_by_shard_and_row(tiny_dataset, sharding):
    feed = Feed(tiny_dataset / "dataset", "train", 2, seed=0)
    tokens = feed.batch(1).tokens
    highest = int(tokens.max())
    path, row = feed.locate(1, int(np.argwhere(tokens == highest)[0][0]))
    with (
        pytest.raises(DatasetError, match=rf"{path.name}: row {row}, .* step 2, .* id {highest}, .* has {highest} "),
        device_batches(feed, sharding, 1, 2, vocab_size=highest) as batches,
    ):
        list(batches)


def test_each_process_reads_the_rows_of_its_own_devices_and_they_make_the_batch(tiny_dataset, tmp_path):
    """Two processes of two devices each: rows split over them, positions split over them, and both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    started = []
    for index in range(2):
        # A file, because a pipe would fill up while the other process is waited for.
        output = open(tmp_path / str(index), "w")  # noqa: SIM115
        command = [sys.executable, "-m", "tests.train.feeding_process", str(tiny_dataset / "dataset"), str(port)]
        started.append(
            subprocess.Popen(
                [*command, str(index), "2"], cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.PIPE
            )
        )
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    results = [json.loads((tmp_path / str(index)).read_text().splitlines()[-1]) for index in range(2)]
    rows, steps = feeding_process.ROWS, (2, 3, 4)
    feed = Feed(tiny_dataset / "dataset", "train", rows, seed=1)
    spans_of_process = (  # for each mesh, what each of the two should read of a batch
        ([(0, 2), (2, 4)], [(4, 6), (6, 8)]),
        ([(0, 4)], [(4, 8)]),
        ([(0, 8)], [(0, 8)]),
        ([(0, 4)], [(4, 8)]),
    )
    for number, spans in enumerate(spans_of_process):
        of_mesh = [result[number] for result in results]
        for process, expected in zip(of_mesh, spans, strict=True):
            assert process["read"] == [[step, *span] for step in steps for span in expected]
        for place, step in enumerate(steps):
            whole = feed.batch(step)
            for name in NAMES:
                assembled = np.full((rows, feed.sequence_length), -1)
                for process in of_mesh:
                    for ((top, bottom), (left, right)), part in process["held"][place][name]:
                        assembled[top:bottom, left:right] = part
                np.testing.assert_array_equal(assembled, getattr(whole, name))
