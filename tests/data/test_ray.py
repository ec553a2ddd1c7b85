"""The data stage over a real Ray cluster: the bytes of a local run, also where a node dies on the way."""

import functools
import itertools
import json

import pytest

from jaxwiz.clean import run as cleaning
from jaxwiz.clean.config import CleanConfig
from jaxwiz.data import run as stage
from jaxwiz.data.run import run
from jaxwiz.fanout import RayEngine, check_engine
from jaxwiz.files import hash_tree
from jaxwiz.problems.config import HumanEvalConfig
from tests.data.conftest import alpaca_rows
from tests.data.slow import slowly
from tests.ray_cluster import TwoNodes

pytestmark = pytest.mark.ray

SETTINGS = {
    "heldout_share": 0.2,
    "rows_per_shard": 4,
    "pack_window": 64,
    "clean": CleanConfig(benchmarks=(HumanEvalConfig(),)),
}


REPEATED = 20
ROWS = [*alpaca_rows(400), *alpaca_rows(REPEATED)]
# Where each step hands out its work, and which call there is the step's.
STEPS = {"clean": (cleaning, 0), "encode": (stage, 0), "shards": (stage, 1)}


@pytest.fixture
def wanted(make_config, monkeypatch) -> dict[str, str]:
    """What a local run makes of the same rows; blocks are small, so that there is much to hand out."""
    monkeypatch.setattr(stage, "ROWS_PER_BLOCK", 8)
    monkeypatch.setattr(cleaning, "ROWS_PER_BLOCK", 16)
    config = make_config(ROWS, out="local", **SETTINGS)
    run(config)
    assert json.loads((config.out / "cleaning.json").read_text())["reasons"]["duplicate"] >= REPEATED
    return hash_tree(config.out)


def test_a_cluster_makes_the_same_bytes(wanted, make_config, cluster_address: str):
    engine = RayEngine(address=cluster_address)
    assert [finding.level for finding in check_engine(engine)] == ["ok"]
    config = make_config(ROWS, engine=engine, **SETTINGS)
    run(config)
    assert hash_tree(config.out) == wanted


@pytest.mark.parametrize("step", STEPS)
def test_a_node_killed_half_way_loses_nothing(
    step, wanted, make_config, breakable_cluster: TwoNodes, monkeypatch, capsys, tmp_path
):
    config = make_config(ROWS, engine=RayEngine(address=breakable_cluster.address), **SETTINGS)
    module, call_of_step = STEPS[step]
    original = module.fan_out
    calls = itertools.count()
    at_work = tmp_path / "nodes"
    at_work.mkdir()

    def killing(engine, work, items, **named):
        if next(calls) != call_of_step:
            yield from original(engine, work, items, **named)
            return
        killed = False
        for result in original(engine, functools.partial(slowly, at_work, work), items, **named):
            if not killed and len(list(at_work.iterdir())) == 2:
                breakable_cluster.kill_second()
                killed = True
            yield result

    monkeypatch.setattr(module, "fan_out", killing)
    run(config)
    assert "lost a worker on node" in capsys.readouterr().err, "the node had nothing to do: the test shows nothing"
    assert hash_tree(config.out) == wanted


def test_a_run_begun_here_goes_on_over_a_cluster(wanted, make_config, cluster_address: str, monkeypatch):
    """The engine has no say in results, so an interrupted run may change it."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "plan_layouts", stop)
        with pytest.raises(KeyboardInterrupt):
            run(make_config(ROWS, **SETTINGS))
    config = make_config(ROWS, engine=RayEngine(address=cluster_address), **SETTINGS)
    run(config)
    assert hash_tree(config.out) == wanted
