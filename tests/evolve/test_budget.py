"""Budgets: a run stops within its limit with a valid set, and continues to the bytes of a run without one."""

import dataclasses
import re
from pathlib import Path

import pytest

from jaxwiz import cli
from jaxwiz.config import to_yaml
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.account import Account, BudgetError
from jaxwiz.evolve.config import BudgetConfig, PricesConfig
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult, estimate_tokens
from jaxwiz.records import EvolvedTask, read_records
from jaxwiz.stages import STAGES
from jaxwiz.step import run_step
from tests.evolve.fakes import FakeGenerator, config_for, moody

RESULTS = STAGES["evolve"].results
PRICES = PricesConfig(input_per_million=1000.0, output_per_million=4000.0)


def billed(request: GenerationRequest) -> GenerationResult:
    return dataclasses.replace(moody(request), prompt_tokens=estimate_tokens(request.prompt))


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """Serves every run of a test, so that its list of requests is what an endpoint would have seen."""
    one = FakeGenerator(billed)
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: one)
    return one


@pytest.fixture
def unlimited(tmp_path: Path, generator: FakeGenerator) -> dict[str, bytes]:
    folder = stage.run(config_for(tmp_path, out=tmp_path / "unlimited", prices=PRICES))
    generator.requests.clear()
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.mark.parametrize("limit", ["tokens", "cost"])
def test_a_run_stops_within_its_limit_again_and_again_and_ends_as_if_there_were_none(
    limit: str, tmp_path: Path, generator: FakeGenerator, unlimited: dict[str, bytes]
):
    stops = 0
    for share in range(1, 100):
        budget = BudgetConfig(max_tokens=700 * share) if limit == "tokens" else BudgetConfig(max_cost=0.9 * share)
        config = config_for(tmp_path, budget=budget, prices=PRICES)
        try:
            stage.run(config)
            break
        except BudgetError as error:
            taken = re.match(r"budget: (\d+) tokens, ([\d.]+) USD taken", str(error))
            assert taken is not None
            assert int(taken[1]) <= (budget.max_tokens or 1e9) and float(taken[2]) <= (budget.max_cost or 1e9)
        stops += 1
        kept = list(read_records(config.out / "evolved.jsonl", EvolvedTask))
        known = {task.id for task in (*kept, *read_records(config.out / "rejected.jsonl", EvolvedTask))}
        assert all(task.output and not task.rejected for task in kept)
        assert all(task.round == 0 or task.parent in known for task in kept)
        assert "items wait for a larger budget" in (config.out / "summary.txt").read_text()
    assert stops > 3
    assert {name: (config.out / name).read_bytes() for name in RESULTS} == unlimited
    assert len(set(generator.keys)) == len(generator.keys)


def test_the_command_ends_with_3_and_a_larger_budget_continues_the_same_step(
    tmp_path: Path, generator: FakeGenerator, unlimited: dict[str, bytes], capsys: pytest.CaptureFixture
):
    config = config_for(tmp_path, budget=BudgetConfig(max_tokens=2000), prices=PRICES)
    path = tmp_path / "evolve.yaml"
    path.write_text(to_yaml(config))
    assert cli.main(["evolve", str(path)]) == 3
    assert "the same command with a larger budget continues" in capsys.readouterr().err
    asked = len(generator.requests)
    assert run_step(STAGES["evolve"], dataclasses.replace(config, budget=BudgetConfig())) == "finished"
    assert len(generator.requests) > asked > 0
    assert len(set(generator.keys)) == len(generator.keys)
    assert {name: (config.out / name).read_bytes() for name in RESULTS} == unlimited


def test_a_batch_costs_half():
    for in_batches, cost in ((False, 0.6), (True, 0.3)):
        account = Account(PRICES, in_batches=in_batches)
        account.add(1, "answer", GenerationResult("x", "stop", 200, 100))
        assert account.cost == pytest.approx(cost)
    assert Account().cost is None


def test_only_what_surely_fits_is_affordable():
    requests = [GenerationRequest("x" * 100, number, 50, 0.0, 1.0) for number in range(5)]  # 50 + 16 + 50 tokens each
    for limit, count in ((115, 0), (116, 1), (347, 2), (348, 3), (10_000, 5)):
        assert Account(budget=BudgetConfig(max_tokens=limit)).affordable(requests) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": BudgetConfig(max_cost=1.0)}, r"budget.max_cost needs prices"),
        ({"quotas": {"in_depth/rhyme": 0.1}}, r"quotas names 'in_depth/rhyme', which is not among operations"),
        (
            {"operations": {"in_depth/deepen": 1.0}, "quotas": {"in_depth/deepen": 0.5}},
            "at least one must be left for those above their quota",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        config_for(tmp_path, **changes)
