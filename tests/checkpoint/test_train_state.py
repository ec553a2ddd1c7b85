"""Training states come back bit for bit, or are passed over by name; a disk that fails ends nothing before the end."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxwiz.checkpoint import record
from jaxwiz.checkpoint.record import Retention
from jaxwiz.checkpoint.train_state import SaveError, StateError, TrainCheckpoints, abstract_like
from jaxwiz.sharding.processes import Processes
from tests.disks import limited_file_size, small_disk

Values = dict[str, jax.Array]


def a_state(step: int) -> Values:
    values = jax.random.normal(jax.random.key(step), (64, 1024))  # 256 KiB
    return {"step": jnp.int32(step), "weights": values, "moment": values[:3] * 2}


@contextlib.contextmanager
def opened(folder: Path, newest: int = 9) -> Iterator[TrainCheckpoints]:
    checkpoints = TrainCheckpoints(folder, Retention(newest), {"config": {"seed": 3}})
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def save_all(folder: Path, *steps: int) -> None:
    with opened(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, a_state(step))


def restored(checkpoints: TrainCheckpoints, step: int) -> Values:
    state = a_state(step)
    return checkpoints.restore(step, abstract_like(state, jax.tree.map(lambda leaf: leaf.sharding, state)))


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_state_comes_back_bit_for_bit_and_says_what_it_is(tmp_path: Path) -> None:
    with opened(tmp_path / "state", newest=2) as checkpoints:
        assert checkpoints.latest_intact() is None and checkpoints.last_saved is None
        for step in (1, 2, 3):
            checkpoints.save(step, a_state(step), {"heldout_loss": 0.5})
        checkpoints.require_saved()
        assert checkpoints.last_saved == 3 and checkpoints.blocked_s > 0
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["2", "3"]
    with opened(tmp_path / "state") as reopened:
        assert reopened.latest_intact() == reopened.last_saved == 3
        jax.tree.map(np.testing.assert_array_equal, restored(reopened, 3), a_state(3))
        about = reopened.about(3)
        assert (about["step"], about["metrics"], about["config"]) == (3, {"heldout_loss": 0.5}, {"seed": 3})
        with pytest.raises(StateError, match="1: no complete state"):
            reopened.about(1)


def test_what_is_saved_is_what_it_was_though_its_buffers_are_reused(tmp_path: Path) -> None:
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = jax.tree.map(jnp.copy, a_state(0))
    with opened(tmp_path) as checkpoints:
        checkpoints.save(0, state)
        for _ in range(20):
            state = step(state)
        checkpoints.wait()
        jax.tree.map(np.testing.assert_array_equal, restored(checkpoints, 0), a_state(0))


def cut_short(folder: Path) -> str:
    path = largest_file(folder)
    os.truncate(path, path.stat().st_size - 1)
    return r"\d+ bytes, [\d,]+ were written"


def lose_a_file(folder: Path) -> str:
    largest_file(folder).unlink()
    return "lost"


def flip_a_bit(folder: Path) -> str:
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return "its SHA-256 is not that of what was written"


def lose_the_checksums(folder: Path) -> str:
    (folder / "files-0.json").unlink()
    return "files-0.json: lost or damaged"


def spoil_the_record(folder: Path) -> str:
    (folder / "checkpoint.json").write_text("{")
    return "checkpoint.json: not a record"


@pytest.mark.parametrize("damage", [cut_short, lose_a_file, flip_a_bit, lose_the_checksums, spoil_the_record])
def test_damaged_states_are_passed_over_by_name_and_stay_on_disk(damage, tmp_path: Path, capsys) -> None:
    save_all(tmp_path, 1, 2)
    what = damage(tmp_path / "2")
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest_intact() == 1
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(f"step 2 is DAMAGED and passed over, moved to {tmp_path}/2.damaged-1: .*{what}", said), said
        jax.tree.map(np.testing.assert_array_equal, restored(checkpoints, 1), a_state(1))
        checkpoints.save(2, a_state(2))  # its place is free
        checkpoints.require_saved()
        assert checkpoints.latest_intact() == 2
    assert (tmp_path / "2.damaged-1" / "arrays").is_dir()


def test_a_state_that_another_process_does_not_see_is_an_error_not_damage(tmp_path: Path) -> None:
    class WithABlindOne(Processes):
        def gather(self, value: str) -> list[str]:
            return [value, json.dumps([False, ["checkpoint.json: not a record"]])]

    save_all(tmp_path, 1)
    checkpoints = TrainCheckpoints(tmp_path, Retention(1), processes=WithABlindOne())
    with pytest.raises(StateError, match=r"/1: process 0 sees it, but process 1 of 2 does not"):
        checkpoints.latest_intact()
    assert (tmp_path / "1" / "checkpoint.json").exists()
    checkpoints.close()


def test_orbax_itself_would_restore_a_flipped_bit(tmp_path: Path) -> None:
    """The reason for checksums of our own; if this fails, Orbax has learnt it."""
    save_all(tmp_path, 1)
    flip_a_bit(tmp_path / "1")
    with opened(tmp_path) as checkpoints:
        found = restored(checkpoints, 1)
    assert any((one != other).any() for one, other in zip(found.values(), a_state(1).values(), strict=True))


def test_an_unfinished_save_is_removed_with_a_word(tmp_path: Path, capsys) -> None:
    save_all(tmp_path, 1, 2)
    (tmp_path / "2" / "checkpoint.json").unlink()  # as a kill leaves it between write and commit
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest_intact() == 1
    assert "the save of step 2 was cut short; removed" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "2").exists()


def test_a_state_of_other_arrays_is_an_error_that_names_it(tmp_path: Path) -> None:
    save_all(tmp_path, 1)
    other = {**a_state(1), "weights": jnp.zeros((8, 8))}
    with opened(tmp_path) as checkpoints, pytest.raises(StateError, match=r"1: its arrays are not those of this run"):
        checkpoints.restore(1, abstract_like(other, jax.tree.map(lambda leaf: leaf.sharding, other)))


def test_on_a_full_disk_training_goes_on_and_the_next_save_tries_again(tmp_path: Path, capsys) -> None:
    # Five states of a quarter of a megabyte do not fit.
    with small_disk(tmp_path / "disk", "1400k") as disk, opened(disk / "state", newest=1) as checkpoints:
        checkpoints.save(1, a_state(1))
        checkpoints.require_saved()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        checkpoints.save(2, a_state(2))
        with pytest.raises(SaveError, match=r"never succeeded: step 2: (.|\n)*complete state in .*: of step 1"):
            checkpoints.require_saved()
        assert SaveError.exit_code == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "WARNING: the state of step 2 could NOT be saved" in said and "training goes on" in said
        assert sorted(path.name for path in (disk / "state").iterdir()) == ["1"]  # room for the next try
        (disk / "filler").unlink()
        checkpoints.save(3, a_state(3))
        checkpoints.require_saved()
        assert checkpoints.latest_intact() == 3


def test_a_file_that_may_not_grow_is_borne_likewise(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, a_state(1))
        checkpoints.wait()
        with limited_file_size(50_000):
            checkpoints.save(2, a_state(2))
            checkpoints.wait()
        assert checkpoints.failure is not None and checkpoints.failure.startswith("step 2: ")
        checkpoints.save(3, a_state(3))
        checkpoints.require_saved()
        assert checkpoints.latest_intact() == 3


def test_a_folder_that_cannot_be_written_is_borne_likewise(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the place of the folder")  # root may write wherever there is a folder
    with opened(tmp_path / "state") as checkpoints:
        checkpoints.save(1, a_state(1))
        with pytest.raises(SaveError, match=r"step 1: .*(Not a directory|File exists).*none"):
            checkpoints.require_saved()
        (tmp_path / "state").unlink()
        checkpoints.save(2, a_state(2))
        checkpoints.require_saved()


def test_a_kill_while_an_old_state_is_removed_leaves_it_unfinished_not_damaged(tmp_path: Path, monkeypatch) -> None:
    save_all(tmp_path, 1)
    monkeypatch.setattr(type(record.step_folders(record.epath.Path(tmp_path))[1]), "rmtree", lambda *_, **__: None)
    record.remove(record.epath.Path(tmp_path) / "1")
    assert not record.is_complete(record.epath.Path(tmp_path) / "1")
    assert json.loads((tmp_path / "1" / "files-0.json").read_text())
