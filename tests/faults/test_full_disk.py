"""Where states cannot be saved training goes on, and the command ends with an exit code that says so."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxwiz.train.config import TrainConfig
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.status import lives
from tests.disks import small_disk
from tests.faults.lives import live

pytestmark = pytest.mark.faults


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as disk:
        yield disk


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file"


@pytest.mark.parametrize("place", ["full_disk", "no_folder"])
def test_training_goes_on_and_the_command_fails_at_its_end(
    whole: TrainConfig, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(place) / "state"
    intervals = dataclasses.replace(whole.intervals, checkpoint_folder=str(folder))
    config = dataclasses.replace(whole, out=tmp_path / "out", intervals=intervals)
    ended = live(config)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("could NOT be saved") == 6  # at steps 2, 4, ... 12
    assert "the last save of the state never succeeded: step 12: " in ended.stderr
    if place == "no_folder":  # where a write fails half-way, TensorStore's own threads print what nobody waits for
        assert "Traceback" not in ended.stderr
    assert (config.out / "model").is_dir() and read_metrics(config.out / "metrics.jsonl")[-1]["step"] == 14
    (life,) = lives(config.out)
    assert life.end is not None and life.end["exit_code"] == 1


def test_a_run_that_is_stopped_but_could_not_save_does_not_ask_for_a_restart(
    whole: TrainConfig, tmp_path: Path, no_folder: Path
) -> None:
    intervals = dataclasses.replace(whole.intervals, checkpoint_folder=str(no_folder / "state"))
    ended = live(dataclasses.replace(whole, out=tmp_path / "out", intervals=intervals), "sigterm", 4, 0.0)
    assert ended.returncode == 1 and "never succeeded" in ended.stderr, ended.stderr
