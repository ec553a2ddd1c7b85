"""The trace of some steps: what it holds, what reads it, and how the busy share comes about."""

import dataclasses
import gzip
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from jaxwiz.files import UserError
from jaxwiz.train import run as train_stage
from jaxwiz.train.config import BatchConfig, ComputeConfig, IntervalsConfig, TrainConfig
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.profile import DeviceTime, device_time, steps_to_trace


@pytest.mark.parametrize(
    ("asked", "first", "last", "steps"),
    [
        (None, 1, 20, []),
        ("", 1, 20, [4, 5, 6, 7, 8]),
        ("", 7, 20, [10, 11, 12, 13, 14]),
        ("", 1, 6, [2, 3, 4, 5, 6]),
        ("", 1, 3, [1, 2, 3]),
        ("3:3", 1, 20, [3]),
        ("2:4", 2, 4, [2, 3, 4]),
    ],
)
def test_which_steps_are_traced(asked: str | None, first: int, last: int, steps: list[int]) -> None:
    assert list(steps_to_trace(asked, first, last)) == steps


@pytest.mark.parametrize("asked", ["3", "5:4", "1:2:3", "x:y", "1:4", "4:21"])
def test_steps_that_cannot_be_traced_are_told(asked: str) -> None:
    with pytest.raises(UserError, match=f"--profile {asked}: "):
        steps_to_trace(asked, 2, 20)


class Event(NamedTuple):
    start_ns: float
    end_ns: float
    stats: tuple[tuple[str, Any], ...] = (("hlo_op", "dot"),)


class Line(NamedTuple):
    name: str
    events: list[Event]


class Plane(NamedTuple):
    name: str
    lines: list[Line]


class Profile(NamedTuple):
    planes: list[Plane]


def in_program(run: int, *times: tuple[float, float]) -> list[Event]:
    return [Event(begin, end, (("hlo_op", "dot"), ("run_id", run))) for begin, end in times]


def test_busy_is_what_operations_cover_and_waiting_what_programs_do_not() -> None:
    host = Plane(
        "/host:CPU",
        [
            Line("python", [Event(0, 100, (("step_num", 1),))]),
            Line("thread 1", in_program(1, (10, 20), (12, 16)) + in_program(2, (40, 50))),
            Line("thread 2", in_program(1, (15, 22), (25, 30))),
        ],
    )
    spent = device_time(Profile([host]))  # type: ignore[arg-type]
    assert spent is not None
    assert spent.busy == pytest.approx((12 + 5 + 10) / 40)
    assert spent.waiting == pytest.approx(10 / 40)


def test_accelerators_are_told_by_their_planes_and_averaged() -> None:
    host = Plane("/host:CPU", [Line("thread", in_program(1, (0, 1)))])
    tpu = Plane(
        "/device:TPU:0",
        [
            Line("XLA Modules", [Event(0, 40), Event(50, 100)]),
            Line("XLA Ops", [Event(0, 30), Event(60, 100)]),
            Line("Steps", [Event(0, 1000)]),
        ],
    )
    gpu = Plane("/device:GPU:1", [Line("Stream #1", [Event(0, 30)]), Line("Stream #2", [Event(20, 60)])])
    assert device_time(Profile([host, gpu])) == DeviceTime(1.0, None)  # type: ignore[arg-type]
    spent = device_time(Profile([host, tpu, gpu, Plane("/device:CUSTOM", [])]))  # type: ignore[arg-type]
    assert spent is not None
    assert (spent.busy, spent.waiting) == (pytest.approx((0.7 + 1) / 2), pytest.approx(0.1))


def test_a_trace_without_devices_tells_nothing() -> None:
    assert device_time(Profile([Plane("/host:CPU", [Line("python", [])])])) is None  # type: ignore[arg-type]


def test_a_trace_holds_its_steps_and_changes_nothing(
    tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        out=tmp_path / "out",
        dataset=tiny_dataset,
        checkpoint=tiny_checkpoint,
        batch=BatchConfig(rows=2),
        compute=ComputeConfig(loss_chunk_positions=64),
        steps=4,
        intervals=IntervalsConfig(checkpoint_steps=100, eval_steps=3),
    )
    train_stage.run(config, profile="2:3")
    said = capsys.readouterr().err
    told = re.search(
        r"profile in (\S+): devices were busy (\d+\.\d)% of the time, and waited for the host (\d+\.\d)%", said
    )
    assert told is not None, said
    assert 0 < float(told[2]) <= 100 - float(told[3])

    # For TensorBoard: the layout that its plug-in looks for, below the folder of the run's other curves.
    trace = Path(told[1])
    assert trace.parent == config.out / "tensorboard" / "plugins" / "profile"
    (xplane,) = trace.glob("*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(xplane))
    events = [event for plane in profile.planes for line in plane.lines for event in line.events]
    steps = [dict(event.stats)["step_num"] for event in events if event.name == "train"]
    assert steps == [2, 3]
    operations = {dict(event.stats)["hlo_op"] for event in events if any(name == "hlo_op" for name, _ in event.stats)}
    assert any("dot" in operation or "fusion" in operation for operation in operations)

    # For Perfetto: a Chrome trace.
    with gzip.open(trace / "perfetto_trace.json.gz", "rt") as file:
        shown = json.load(file)["traceEvents"]
    found = [event for event in shown if event.get("name") == "train" and event["ph"] == "X"]
    assert sorted(int(event["args"]["step_num"]) for event in found) == [2, 3]
    assert all(event["dur"] > 0 and "ts" in event and "pid" in event for event in found)

    # Nor does a held-out loss between steps change what is trained.
    plain = dataclasses.replace(config, out=tmp_path / "plain", intervals=IntervalsConfig(checkpoint_steps=100))
    train_stage.run(plain)
    lines = [line for line in read_metrics(config.out / "metrics.jsonl") if line["step"] != 3 or "loss" in line]
    assert read_metrics(plain.out / "metrics.jsonl") == lines and len(lines) == 4 + 2
