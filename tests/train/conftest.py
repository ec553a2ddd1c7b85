"""A tiny checkpoint and a tiny packed dataset, made by the code that users' ones are made by."""

import json
from pathlib import Path

import jax
import pytest

from jaxwiz.checkpoint.weights import save_weights
from jaxwiz.data import run as data_stage
from jaxwiz.data.config import DataConfig
from jaxwiz.model.params import init_params
from jaxwiz.text.tokenizer import load_tokenizer
from tests.train.tiny import MODEL


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Path:
    """Random weights of a model that is as large as the tiny tokenizer's vocabulary allows."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    assert load_tokenizer(tiny_tokenizer_folder).vocab_size <= MODEL.vocab_size
    params = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    save_weights(folder, params, MODEL, tiny_tokenizer_folder, {"made_by": "tests"})
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Path:
    """Some forty short instructions in packed rows of 256 tokens, with a held-out split."""
    folder = tmp_path_factory.mktemp("dataset")
    seeds = folder / "seeds.jsonl"
    with open(seeds, "w") as file:
        for number in range(40):
            instruction = f"Write a Python function that returns {number} plus its argument."
            output = f"def add_{number}(value):\n    return {number} + value\n" * (1 + number % 3)
            file.write(json.dumps({"instruction": instruction, "output": output}) + "\n")
    config = DataConfig(
        out=folder / "out", sources=(seeds,), tokenizer=tiny_tokenizer_folder, sequence_length=256, heldout_share=0.2
    )
    return data_stage.run(config)
