"""The tiny checkpoint and dataset of the train tests, and a run of them that nothing disturbs."""

from pathlib import Path

import pytest

from jaxwiz.train.config import TrainConfig
from tests.faults.lives import a_config, live
from tests.train.conftest import tiny_checkpoint, tiny_dataset

__all__ = ["tiny_checkpoint", "tiny_dataset", "whole"]


@pytest.fixture(scope="session")
def whole(tiny_checkpoint: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The config of a finished run of 14 steps of 8 rows, by one process with one device."""
    config = a_config(tmp_path_factory.mktemp("whole") / "out", tiny_dataset, tiny_checkpoint, steps=14, rows=8)
    done = live(config)
    assert done.returncode == 0, done.stderr
    return config
