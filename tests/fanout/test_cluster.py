"""Over a real cluster of two nodes: every result once, whatever is lost on the way."""

import functools
import os
import time
from pathlib import Path

import pytest

from jaxwiz.fanout import FanoutError, RayEngine, check_engine, fan_out
from tests.fanout import work
from tests.ray_cluster import TwoNodes

pytestmark = pytest.mark.ray

NUMBERS = [(number, number) for number in range(200)]
SQUARES = {number: number**2 for number in range(200)}


def test_both_nodes_work_and_every_result_comes_once(cluster_address: str, tmp_path: Path) -> None:
    signed = functools.partial(work.square_and_sign, tmp_path, 0.002)
    results = list(fan_out(RayEngine(address=cluster_address), signed, NUMBERS, per_shard=8, ahead=1))
    assert {key: square for key, (square, _, _) in results} == SQUARES
    assert len(results) == len(NUMBERS)
    assert len({node for _, (_, node, _) in results}) == 2
    assert len({process for _, (_, _, process) in results} | {os.getpid()}) == 3


def test_several_workers_a_node(cluster_address: str, tmp_path: Path) -> None:
    signed = functools.partial(work.square_and_sign, tmp_path, 0.01)
    engine = RayEngine(address=cluster_address, workers_per_node=2)
    results = list(fan_out(engine, signed, NUMBERS, per_shard=1))
    assert len({process for _, (_, _, process) in results}) == 4


def test_a_killed_node_loses_nothing_and_doubles_nothing(breakable_cluster: TwoNodes, tmp_path: Path) -> None:
    signed = functools.partial(work.square_and_sign, tmp_path, 0.05)
    results = []
    for result in fan_out(RayEngine(address=breakable_cluster.address), signed, NUMBERS, per_shard=4, ahead=1):
        results.append(result)
        if len(results) == 40:
            breakable_cluster.kill_second()
    assert {key: square for key, (square, _, _) in results} == SQUARES
    assert len(results) == len(NUMBERS)
    begun = [int(line) for path in tmp_path.iterdir() for line in path.read_text().split()]
    assert len(begun) > len(NUMBERS), "the node was killed with nothing under way: the test shows nothing"
    assert len(begun) <= len(NUMBERS) + 8, "more was done again than the lost worker had"


def test_a_node_that_joins_gets_work(breakable_cluster: TwoNodes, tmp_path: Path) -> None:
    breakable_cluster.kill_second()
    signed = functools.partial(work.square_and_sign, tmp_path, 0.1)
    results = []
    for result in fan_out(RayEngine(address=breakable_cluster.address), signed, NUMBERS[:120], per_shard=1):
        results.append(result)
        if len(results) == 10:
            breakable_cluster.add_second()
    assert {key: square for key, (square, _, _) in results} == {number: number**2 for number in range(120)}
    assert len(results) == 120
    assert len({node for _, (_, node, _) in results}) >= 2


def test_an_item_that_kills_its_worker_ends_the_run_by_name(cluster_address: str) -> None:
    results = fan_out(RayEngine(address=cluster_address, retries=1), functools.partial(work.die_at, 17), NUMBERS)
    with pytest.raises(FanoutError, match=r"node .*: 2 workers were lost that had the items 17, the last by: "):
        list(results)


def test_what_a_node_lacks_is_said_with_its_name(cluster_address: str) -> None:
    with pytest.raises(FanoutError, match=r"^node [\d.]+ \(\w{6}\): the flux capacitor is missing; install one$"):
        list(fan_out(RayEngine(address=cluster_address), work.refuse, NUMBERS))


def test_a_bug_on_a_node_is_raised_as_it_is(cluster_address: str) -> None:
    with pytest.raises(ZeroDivisionError):
        list(fan_out(RayEngine(address=cluster_address), work.fail, NUMBERS))


def test_a_consumer_that_stops_ends_the_workers(cluster_address: str, tmp_path: Path) -> None:
    results = fan_out(
        RayEngine(address=cluster_address), functools.partial(work.square_and_sign, tmp_path, 0.01), NUMBERS
    )
    _, (_, _, process) = next(results)
    results.close()
    begun = sum(len(path.read_text().split()) for path in tmp_path.iterdir())
    assert begun < 20, "items are drawn far ahead of their consumer"
    for _ in range(100):
        if not Path(f"/proc/{process}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the worker goes on though nobody takes its results")


def test_nodes_that_differ_from_this_machine_are_refused(cluster_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxwiz.fanout import cluster

    ours = {**cluster.identity(), "numpy": "0.1"}
    monkeypatch.setattr(cluster, "identity", lambda: ours)
    with pytest.raises(FanoutError, match=r"node .*: numpy is \d.*, here 0\.1; install there what is installed here"):
        list(fan_out(RayEngine(address=cluster_address), functools.partial(work.square, 0.0), NUMBERS))


def test_check_tells_nodes_and_what_they_lack(cluster_address: str) -> None:
    (found,) = check_engine(RayEngine(address=cluster_address))
    assert found.level == "ok" and "2 node(s)" in found.message
    (found,) = check_engine(RayEngine(address=cluster_address, resources={"GPU": 1}))
    assert found.level == "error"
    assert "engine.resources = {'GPU': 1}: no node of the cluster has these; they have: " in found.message
    (found,) = check_engine(RayEngine(address="127.0.0.1:1"))
    assert found.level == "error" and "no Ray cluster to join" in found.message
