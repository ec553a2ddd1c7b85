"""A row that makes the numbers not finite costs its steps, named with their rows, and nothing else of the run."""

import collections
import dataclasses
import json
import re
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.checkpoint.weights import load_weights, save_weights
from jaxwiz.data import run as data_stage
from jaxwiz.data.config import DataConfig
from jaxwiz.data.feed import Feed
from jaxwiz.model.params import init_params
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.optimizer import learning_rate_schedule
from tests.faults.lives import a_config, assert_same_bits, live
from tests.train.tiny import MODEL

pytestmark = pytest.mark.faults

STEPS, ROWS = 14, 2


@pytest.fixture(scope="module")
def dataset(tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which one holds a letter that no other does."""
    folder = tmp_path_factory.mktemp("dataset")
    lines = [{"instruction": f"Add {number}.", "output": f"value + {number}\n" * 9} for number in range(60)]
    lines[11]["output"] += "# ζ\n"
    (folder / "seeds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = DataConfig(
        out=folder / "out",
        sources=(folder / "seeds.jsonl",),
        tokenizer=tiny_tokenizer_folder,
        sequence_length=256,
        heldout_share=0.0,
    )
    return data_stage.run(config)


def the_rarest_token(feed: Feed) -> int:
    """Returns a token of one row only."""
    rows = [feed.batch(step) for step in range(feed.rows)]
    counts = collections.Counter(token for row in rows for token in np.unique(row.tokens[row.segment_ids > 0]).tolist())
    token, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    assert count == 1
    return token


def poisoned(folder: Path, token: int, tokenizer: Path) -> Path:
    """Returns a checkpoint in which one token's embedding is not finite."""
    model = dataclasses.replace(MODEL, tie_embeddings=False)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    params["embed"]["tokens"] = params["embed"]["tokens"].at[token].set(jnp.inf)
    save_weights(folder, params, model, tokenizer, {"made_by": "tests"})
    return folder


def test_poisoned_steps_are_left_out_by_name_and_a_killed_run_leaves_out_the_same(
    dataset: Path, tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    token = the_rarest_token(Feed(dataset / "dataset", "train", 1, seed=0, shuffle=False))
    checkpoint = poisoned(tmp_path / "poisoned", token, tiny_tokenizer_folder)
    whole = a_config(tmp_path / "whole", dataset, checkpoint, STEPS, ROWS)
    whole = dataclasses.replace(whole, intervals=dataclasses.replace(whole.intervals, eval_steps=0))
    feed = Feed(dataset / "dataset", "train", ROWS, seed=whole.seed)
    expected = [step + 1 for step in range(STEPS) if token in feed.batch(step).tokens]
    assert 1 <= len(expected) < STEPS - 2

    done = live(whole)
    assert done.returncode == 0, done.stderr
    lines = read_metrics(whole.out / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "skipped" in line] == expected
    for line in (line for line in lines if "skipped" in line):
        located = [feed.locate(line["step"] - 1, place) for place in range(ROWS)]
        rows = sorted(place[1] for place in located if place is not None)
        assert list(line["skipped"]["rows"].values()) == [rows]
    good = [line for line in lines if "skipped" not in line]
    assert all(np.isfinite(line["loss"]) and np.isfinite(line["grad_norm"]) for line in good)
    schedule = learning_rate_schedule(whole.optimizer, STEPS)
    assert [line["learning_rate"] for line in good] == pytest.approx([float(schedule(n)) for n in range(len(good))])
    assert f"step {expected[0]} is left out, 1 in a row: loss = nan" in done.stderr
    assert f"{len(expected)} step(s) left out" in (whole.out / "summary.txt").read_text()
    trained = load_weights(whole.out / "model")
    trained["embed"]["tokens"] = np.delete(np.asarray(trained["embed"]["tokens"]), token, axis=0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))

    killed = dataclasses.replace(whole, out=tmp_path / "killed")
    for moment in (("committed", 1, 0), ("step", 3, 0.02)):
        assert live(killed, *moment).returncode == -signal.SIGKILL
    assert live(killed).returncode == 0
    assert (killed.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()
    assert_same_bits(load_weights(killed.out / "model"), load_weights(whole.out / "model"))


def test_too_many_in_a_row_end_the_run_and_name_the_last_good_state(whole: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(whole, out=tmp_path / "out")
    assert live(config, "sigterm", 4, 0.0).returncode == 42
    (state,) = [int(path.name) for path in (config.out / "state").iterdir()]
    absurd = dataclasses.replace(config.optimizer, learning_rate=1e30, max_grad_norm=None, schedule="constant")
    broken = dataclasses.replace(config, optimizer=absurd)
    refused = live(broken)
    assert refused.returncode == 2 and "optimizer.learning_rate: 0.003 -> 1e+30" in refused.stderr, refused.stderr
    died = live(broken, environ={"ALLOW_CHANGE": "optimizer"})
    assert died.returncode == 2, died.stderr
    assert "4 step(s) in a row" in died.stderr, died.stderr
    skipped = [line["step"] for line in read_metrics(config.out / "metrics.jsonl") if "skipped" in line]
    (named,) = re.findall(r"last good state: step (\d+)", died.stderr)
    assert state <= int(named) < skipped[0] and len(skipped) == 4
    assert (config.out / "state" / named / "checkpoint.json").exists()
