"""A run that is killed again and again at random moments ends bit for bit as one that is not.

Three moments in `make test`, 25 in `make test-faults`.
"""

import dataclasses
import random
import signal
import time
from pathlib import Path

import pytest

from jaxwiz.checkpoint.weights import load_weights
from jaxwiz.exit_codes import PREEMPTED
from jaxwiz.train.metrics import read_metrics
from tests.faults.lives import SAVE_EVERY, a_config, assert_same_bits, batches, last_state, live, write_result

MOMENTS = ("step", "sigterm", "commit", "writing", "committed")


@pytest.mark.parametrize(("strikes", "steps"), [(3, 24), pytest.param(32, 300, marks=pytest.mark.faults)])
def test_a_run_struck_at_random_moments_ends_bit_for_bit_as_a_whole_one(
    strikes: int, steps: int, tiny_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    whole = a_config(tmp_path / "whole", tiny_dataset, tiny_checkpoint, steps, rows=2)
    struck = dataclasses.replace(whole, out=tmp_path / "struck")
    done = live(whole)
    assert done.returncode == 0, done.stderr

    seed = int(time.time())
    print(f"moments drawn with seed {seed}")
    drawn, told = random.Random(seed), []
    for strike in range(strikes):
        moment = MOMENTS[strike % len(MOMENTS)]
        number = drawn.randint(1, 3) if moment in ("step", "sigterm") else 1
        delay_s = drawn.uniform(0, 0.05)
        died = live(struck, moment, number, delay_s)
        expected = PREEMPTED if moment == "sigterm" else -signal.SIGKILL
        assert died.returncode == expected, (moment, died.stderr)
        lines = read_metrics(struck.out / "metrics.jsonl")
        told.append({"moment": moment, "delay_s": round(delay_s, 4), "at_step": lines[-1]["step"] if lines else 0})
    done = live(struck)
    assert done.returncode == 0, done.stderr
    assert "DAMAGED" not in done.stderr and "continues after step" in done.stderr

    assert (struck.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()
    assert_same_bits(last_state(struck), last_state(whole))
    assert_same_bits(load_weights(struck.out / "model"), load_weights(whole.out / "model"))
    assert batches(struck) == batches(whole) and all(len(digests) == 1 for digests in batches(whole).values())
    if strikes > 3:
        kills = sum(each["moment"] != "sigterm" for each in told)
        assert kills >= 25
        result = {"seed": seed, "steps": steps, "save_every_steps": SAVE_EVERY, "kills": kills, "same_bits": True}
        write_result("exact_resume", {**result, "moments": told})
