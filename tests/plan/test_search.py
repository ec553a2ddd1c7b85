"""Searches over plans that a fake planner makes, whose memory is a formula."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.model.config import LlamaConfig
from jaxwiz.plan.build import Plan
from jaxwiz.plan.chips import GIB, Topology
from jaxwiz.plan.request import Compiled, OutOfMemory, Request
from jaxwiz.plan.roofline import Roofline
from jaxwiz.plan.search import advice, best_of, largest_batch, largest_of
from jaxwiz.plan.traffic import Traffic
from jaxwiz.sharding.mesh import MeshConfig
from jaxwiz.train.config import BatchConfig, ComputeConfig, TrainConfig

MODEL = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8
)
KEPT = {"none": 8, "dots": 4, "save_feed_forward": 3, "save_attention": 2, "full": 1}  # GiB a row


def request(remat: str = "dots", parts: int = 4, **mesh: int) -> Request:
    paths = {"out": Path("out"), "dataset": Path("data"), "checkpoint": Path("model")}
    train = TrainConfig(
        **paths,
        steps=1,
        mesh=MeshConfig(**mesh),
        batch=BatchConfig(rows=128, micro_batches=parts),
        compute=ComputeConfig(dtype="bfloat16", remat=remat),
    )
    return Request(MODEL, train, 2048, Topology.parse("v5e:4x4"))


@dataclasses.dataclass
class Planner:
    """Needs 32 GiB of state over fsdp shards, and activations by rows and remat; counts what it is asked."""

    asked: int = 0

    def __call__(self, wanted: Request) -> Plan | OutOfMemory:
        self.asked += 1
        sizes = wanted.train.mesh.sizes(16)
        rows = wanted.train.batch.rows / wanted.train.batch.micro_batches / (sizes["data"] * sizes["fsdp"])
        need = int(GIB * (64 / sizes["fsdp"] + rows * KEPT[wanted.train.compute.remat]))
        if need > wanted.topology.chip.usable_bytes:
            return OutOfMemory("no room", need - wanted.topology.chip.usable_bytes)
        compiled = Compiled("", sizes, [], "splash", {}, 0, need, 0.0, 0, 0.0)
        seconds = 1 + 0.1 * KEPT["none"] / KEPT[wanted.train.compute.remat]
        return Plan(wanted, compiled, Traffic(), 1.0, Roofline(seconds, 0, 0, 0, 1), {})


def test_the_largest_micro_batch_is_the_one_with_the_fewest_parts_that_fits():
    planner = Planner()
    attempts = largest_batch(request("dots"), planner)
    found = largest_of(attempts)
    assert found is not None
    assert found.change == "batch.micro_batches=4"  # two rows of 4 GiB and 4 GiB of state; four rows would need 20
    assert planner.asked <= 3  # of 1, 2, 4 and 8


def test_nothing_fits_where_state_alone_is_too_large():
    assert largest_of(largest_batch(request("full", data=4), Planner())) is None


def test_advice_tries_each_ladder_until_it_fits():
    tried = {attempt.change: attempt.fits for attempt in advice(request("none", parts=4), Planner())}
    assert tried == {"batch.micro_batches=8": True, "compute.remat=dots": True}


def test_advice_finds_that_replicas_are_what_does_not_fit():
    attempts = advice(request("full", parts=4, data=4), Planner())
    assert [attempt.change for attempt in attempts if attempt.fits] == ["mesh.data=1 mesh.fsdp=16"]


def test_the_best_is_the_one_that_can_be_fastest():
    attempts = advice(request("none", parts=4), Planner())
    best = best_of(attempts)
    assert best is not None
    assert best.change == "batch.micro_batches=8"  # what keeps more recomputes less


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_missing_is_known_where_nothing_fits(parts: int):
    found = Planner()(request("none", parts=parts))
    assert isinstance(found, OutOfMemory)
    assert found.missing > 0
