"""Resuming: what is there is not made again, what was for another purpose is not used, and results come out whole."""

import json

import pytest

from jaxwiz import files
from jaxwiz.data import run as stage
from jaxwiz.data.job import RESULTS, describe_purpose
from jaxwiz.data.run import run
from jaxwiz.fanout import RayEngine
from jaxwiz.files import hash_tree
from tests.data.conftest import alpaca_rows


class KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(stage, "ROWS_PER_BLOCK", 16)


def interrupt(config, monkeypatch, module=stage, function: str = "write_metadata", calls: int = 1) -> None:
    """Runs the stage until a function of a module is called for the `calls`-th time."""
    original = getattr(module, function)
    seen = []

    def dying(*arguments, **named):
        seen.append(1)
        if len(seen) == calls:
            raise KilledError
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, function, dying)
        with pytest.raises(KilledError):
            run(config)


def wrote(folder) -> dict[str, int]:
    """Returns when each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_blocks")
def test_a_resumed_run_makes_only_what_is_missing(make_config, monkeypatch, capsys):
    whole = make_config(alpaca_rows(60), out="whole", rows_per_shard=4)
    run(whole)
    config = make_config(alpaca_rows(60), rows_per_shard=4)
    interrupt(config, monkeypatch)
    work = config.out / "work"
    before = wrote(work)
    assert sum(name.endswith(".npz") for name in before) == 4
    shards = sorted((work / "result" / "dataset").iterdir())
    assert shards[0].name.endswith(f"-00000-of-{len(shards):05d}")
    shards[1].unlink()  # as if the kill had come before it
    shards[2].write_bytes(b"damaged")
    (work / "blocks" / "000001.npz").unlink()
    interrupt(config, monkeypatch)
    after = wrote(work)
    assert {name for name in before if after[name] != before[name]} == {
        "000001.npz",
        *(f"{shard.name}{suffix}" for shard in shards[1:3] for suffix in ("", ".json")),
    }
    assert "going on with the interrupted run" in capsys.readouterr().err
    run(config)
    assert not work.exists()
    assert hash_tree(config.out) == hash_tree(whole.out)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"sequence_length": 128}, "sequence_length"),
        ({"pack_window": 7, "seed": 5}, "pack_window, seed"),
        ({"rows": alpaca_rows(61)}, "sources.0"),
        ({"template": "alpaca"}, "template"),
    ],
)
def test_another_config_or_input_starts_anew_and_says_so(changes, changed, make_config, monkeypatch, capsys):
    rows = alpaca_rows(60)
    interrupt(make_config(rows), monkeypatch)
    changed_config = make_config(changes.pop("rows", rows), **changes)
    run(changed_config)
    assert f"{changed} changed since the interrupted run" in capsys.readouterr().err
    fresh = make_config(changed_config.sources[0], out="fresh", **changes)
    run(fresh)
    assert hash_tree(changed_config.out) == hash_tree(fresh.out)


def test_places_and_engine_have_no_say(make_config):
    one = make_config(alpaca_rows(3))
    other = make_config(alpaca_rows(3), out="elsewhere", engine=RayEngine())
    assert describe_purpose(one, ["a"], {"tokenizer": "t"}) == describe_purpose(other, ["a"], {"tokenizer": "t"})
    assert describe_purpose(one, ["b"], {"tokenizer": "t"}) != describe_purpose(other, ["a"], {"tokenizer": "t"})


@pytest.mark.parametrize(
    "moved",
    range(len(RESULTS) - 1),  # nothing was rejected
)
def test_a_run_that_is_killed_while_results_come_out_only_moves_the_rest(moved, make_config, monkeypatch):
    whole = make_config(alpaca_rows(20), out="whole")
    run(whole)
    run(make_config(alpaca_rows(9)))  # stands in its place
    config = make_config(alpaca_rows(20))
    interrupt(config, monkeypatch, files, "move_into_place", moved + 1)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "plan_layouts", None)  # would fail if anything were made again
        run(config)
    assert hash_tree(config.out) == hash_tree(whole.out)


def test_a_damaged_job_file_starts_anew(make_config, monkeypatch):
    config = make_config(alpaca_rows(20))
    interrupt(config, monkeypatch)
    (config.out / "work" / "job.json").write_text("{")
    run(config)
    assert json.loads((config.out / "manifest.json").read_text())["source_rows"] == 20
