"""States go to gs:// by the very code that writes them to a disk: saved, checked, passed over, restored, removed."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxwiz.checkpoint.record import Retention
from jaxwiz.checkpoint.train_state import TrainCheckpoints, abstract_like
from tests.checkpoint.fake_gcs import FakeGcs

pytest.importorskip("gcsfs", reason="gs:// needs the gcs extra: pip install jaxwiz[gcs]")


@pytest.fixture
def gcs() -> Iterator[FakeGcs]:
    with FakeGcs("bucket") as server:
        yield server


def a_state(step: int) -> dict[str, jax.Array]:
    return {"weights": jax.random.normal(jax.random.key(step), (64, 128)), "step": jax.numpy.int32(step)}


def test_a_state_on_gs_is_saved_checked_restored_and_removed_like_any_other(gcs: FakeGcs, capsys) -> None:
    checkpoints = TrainCheckpoints("gs://bucket/run/state", Retention(2), {"config": {"seed": 3}})
    assert checkpoints.latest_intact() is None
    for step in (1, 2, 3):
        checkpoints.save(step, a_state(step))
    checkpoints.require_saved()
    assert {name.split("/")[2] for name in gcs.objects} == {"2", "3"}
    assert {"run/state/3/checkpoint.json", "run/state/3/files-0.json"} <= gcs.objects.keys()

    damaged = max((name for name in gcs.objects if "/3/arrays/" in name), key=lambda name: len(gcs.objects[name]))
    content = bytearray(gcs.objects[damaged])
    content[len(content) // 2] ^= 1
    gcs.put(damaged, bytes(content))
    reopened = TrainCheckpoints("gs://bucket/run/state", Retention(2))
    assert reopened.latest_intact() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "step 3 is DAMAGED and passed over, moved to gs://bucket/run/state/3.damaged-1" in said
    like = a_state(0)
    found = reopened.restore(2, abstract_like(like, jax.tree.map(lambda leaf: leaf.sharding, like)))
    jax.tree.map(np.testing.assert_array_equal, found, a_state(2))
    assert reopened.about(2)["config"] == {"seed": 3}
    reopened.save(3, a_state(3))
    reopened.require_saved()
    assert reopened.latest_intact() == 3
    for each in (checkpoints, reopened):
        each.close()
