"""What a run takes over from its config and checkpoint into the compiled step."""

import dataclasses
import shutil
from pathlib import Path

from jaxwiz.checkpoint.weights import read_header, write_header
from jaxwiz.train.config import LossConfig, TrainConfig
from jaxwiz.train.job import make_job
from jaxwiz.train.loss import Objective
from tests.train.tiny import MODEL


def test_the_objective_follows_the_config_and_leaves_out_rows_that_pad_the_vocabulary(
    tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    config = TrainConfig(out=tmp_path / "out", dataset=tiny_dataset, checkpoint=tiny_checkpoint, steps=1)
    assert make_job(config).objective == Objective(0.0, 0.0, None)
    padded = tmp_path / "padded"
    shutil.copytree(tiny_checkpoint, padded)
    write_header(padded, dataclasses.replace(read_header(padded), unpadded_vocab_size=MODEL.vocab_size - 4))
    other = dataclasses.replace(config, checkpoint=padded, loss=LossConfig(z_loss=1e-4, label_smoothing=0.1))
    job = make_job(other)
    assert job.objective == Objective(1e-4, 0.1, MODEL.vocab_size - 4)
