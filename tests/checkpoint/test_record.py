"""Which states stay, by count, age and held-out loss; and how a state's record is read."""

from typing import Any

from etils import epath

from jaxwiz.checkpoint import record
from jaxwiz.checkpoint.record import Retention

HOUR = 3600.0
NOW = 100 * HOUR


def a_record(step: int, hours_old: float, heldout_loss: float | None = None) -> dict[str, Any]:
    metrics = {} if heldout_loss is None else {"heldout_loss": heldout_loss}
    return {"step": step, "saved_at": NOW - hours_old * HOUR, "metrics": metrics}


RECORDS = [
    a_record(10, 9, 1.5),
    a_record(20, 5, 1.1),
    a_record(30, 2.5),
    a_record(40, 1.5, 1.3),
    a_record(50, 0.1, 1.4),
]


def test_the_newest_stay() -> None:
    assert Retention(1).kept(RECORDS, NOW) == {50}
    assert Retention(3).kept(RECORDS, NOW) == {30, 40, 50}
    assert Retention(9).kept(RECORDS, NOW) == {10, 20, 30, 40, 50}


def test_the_young_stay_besides() -> None:
    assert Retention(1, hours=2).kept(RECORDS, NOW) == {40, 50}
    assert Retention(1, hours=0.01).kept(RECORDS, NOW) == {50}


def test_the_best_stay_besides_and_without_a_loss_none_is_best() -> None:
    assert Retention(1, best=1).kept(RECORDS, NOW) == {20, 50}
    assert Retention(1, best=2).kept(RECORDS, NOW) == {20, 40, 50}
    assert Retention(1, best=9).kept(RECORDS, NOW) == {10, 20, 40, 50}


def test_the_rules_add_up() -> None:
    assert Retention(1, hours=3, best=1).kept(RECORDS, NOW) == {20, 30, 40, 50}


def test_each_process_answers_for_the_files_that_it_wrote_and_checks_a_share(tmp_path) -> None:
    state = epath.Path(tmp_path) / "7"
    for name in ("common", "ocdbt.process_0/d/a", "ocdbt.process_1/d/b", "ocdbt.process_1/d/c"):
        path = state / "arrays" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for process in (0, 1):
        record.write_checksums(state, process)
    assert not record.is_complete(state) and record.read_records(epath.Path(tmp_path)) == []
    record.complete(state, {"step": 7, "processes": 2})
    assert [found["step"] for found in record.read_records(epath.Path(tmp_path))] == [7]
    assert record.find_damage(state) == []

    (state / "arrays/ocdbt.process_1/d/b").write_text("OCDBT.process_1/d/b")
    (state / "arrays/ocdbt.process_1/d/c").unlink()
    assert record.find_damage(state) == [
        "arrays/ocdbt.process_1/d/b: its SHA-256 is not that of what was written",
        "arrays/ocdbt.process_1/d/c: lost",
    ]
    assert record.find_damage(state, 0, 2) == [
        "arrays/ocdbt.process_1/d/b: its SHA-256 is not that of what was written"
    ]
    assert record.find_damage(state, 1, 2) == ["arrays/ocdbt.process_1/d/c: lost"]
    (state / "files-1.json").unlink()
    assert record.find_damage(state) == ["files-1.json: lost or damaged"]
    (state / "checkpoint.json").write_text('{"step": 7, "proc')
    assert record.find_damage(state) == ["checkpoint.json: not a record of jaxwiz.train_state.v1"]
