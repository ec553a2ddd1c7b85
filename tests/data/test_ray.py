"""The data stage over a real Ray cluster: the bytes of a local run, also where a node dies on the way."""

import functools

import pytest

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


@pytest.fixture
def wanted(make_config, monkeypatch) -> dict[str, str]:
    """What a local run makes of the same rows; blocks are small, so that there is much to hand out."""
    monkeypatch.setattr(stage, "ROWS_PER_BLOCK", 8)
    config = make_config(alpaca_rows(400), out="local", **SETTINGS)
    run(config)
    return hash_tree(config.out)


def test_a_cluster_makes_the_same_bytes(wanted, make_config, cluster_address: str):
    engine = RayEngine(address=cluster_address)
    assert [finding.level for finding in check_engine(engine)] == ["ok"]
    config = make_config(alpaca_rows(400), engine=engine, **SETTINGS)
    run(config)
    assert hash_tree(config.out) == wanted


@pytest.mark.parametrize("step", ["encode", "shards"])
def test_a_node_killed_half_way_loses_nothing(
    step, wanted, make_config, breakable_cluster: TwoNodes, monkeypatch, capsys, tmp_path
):
    config = make_config(alpaca_rows(400), engine=RayEngine(address=breakable_cluster.address), **SETTINGS)
    steps = iter(("encode", "shards"))
    original = stage.fan_out
    at_work = tmp_path / "nodes"
    at_work.mkdir()

    def killing(engine, work, items, **named):
        if next(steps) != step:
            yield from original(engine, work, items, **named)
            return
        killed = False
        for result in original(engine, functools.partial(slowly, at_work, work), items, **named):
            if not killed and len(list(at_work.iterdir())) == 2:
                breakable_cluster.kill_second()
                killed = True
            yield result

    monkeypatch.setattr(stage, "fan_out", killing)
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
            run(make_config(alpaca_rows(400), **SETTINGS))
    config = make_config(alpaca_rows(400), engine=RayEngine(address=cluster_address), **SETTINGS)
    run(config)
    assert hash_tree(config.out) == wanted
