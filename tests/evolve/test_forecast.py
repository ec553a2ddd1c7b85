"""The dry run: by hand for a small pool, and on paper for WizardLM's."""

from pathlib import Path

import pytest

from jaxwiz import cli
from jaxwiz.config import to_yaml
from jaxwiz.evolve import forecast, run
from jaxwiz.evolve.config import CallConfig, CallsConfig, PricesConfig
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.llm.config import OpenAIBackend, OpenAIBatchBackend
from jaxwiz.llm.protocol import estimate_tokens
from jaxwiz.records import Seed, write_records
from tests.evolve.fakes import FakeGenerator, config_for

CALLS = CallsConfig(answer=CallConfig(max_new_tokens=300))


def pool(folder: Path, count: int, words: int = 4) -> Path:
    """Writes seeds of `words` tokens each, the first without an answer."""
    path = folder / "seeds.jsonl"
    write_records(path, (Seed(instruction="abcd" * words, output="yes" if number else "") for number in range(count)))
    return path


def endpoint(**changes) -> OpenAIBackend:
    return OpenAIBackend(base_url="http://localhost/v1", model="m", api_key_env="", **changes)


def test_stages_by_hand(tmp_path: Path):
    config = config_for(tmp_path, seeds=pool(tmp_path, 10), rounds=2, calls=CALLS, operations={"code/complexity": 1})
    prompts = load_prompts(config.operations)
    frame = estimate_tokens(prompts.operations["code/complexity"].prompt(""))
    judge = estimate_tokens(prompts.judge.render(first="", second=""))
    stages = forecast.forecast(run.read_seeds(config.seeds), config, prompts, {})
    assert [(one.title, one.calls, one.prompt_tokens, one.new_tokens, one.most_new_tokens) for one in stages] == [
        ("round 0: answer", 1, 4, 300, 300),  # 400 are assumed, 300 allowed
        ("round 1: evolve", 10, 10 * (frame + 4), 290, 20480),
        ("round 1: judge", 10, 10 * (judge + 4 + 29), 30, 160),
        ("round 1: answer", 10, 290, 3000, 3000),
        ("round 2: evolve", 10, 10 * (frame + 29), 540, 20480),
        ("round 2: judge", 10, 10 * (judge + 29 + 54), 30, 160),
        ("round 2: answer", 10, 540, 3000, 3000),
    ]


def test_nothing_takes_more_calls_than_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = FakeGenerator()
    monkeypatch.setattr(run, "make_generator", lambda backend, work: generator)
    for items in (None, 3):
        config = config_for(tmp_path, out=tmp_path / f"{items}", items_per_round=items)
        run.run(config)
        seeds, prompts = run.read_seeds(config.seeds), load_prompts(config.operations)
        assert sum(one.calls for one in forecast.forecast(seeds, config, prompts, {})) >= len(generator.requests) > 0
        generator.requests.clear()


def test_the_command_prints_cost_and_time_and_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    prices = PricesConfig(input_per_million=1.0, output_per_million=2.0)
    backend = endpoint(max_in_flight=10, requests_per_minute=60, tokens_per_minute=5_000)
    config = config_for(tmp_path, seeds=pool(tmp_path, 1000), rounds=1, prices=prices, generator=backend)
    (tmp_path / "evolve.yaml").write_text(to_yaml(config))
    assert cli.main(["evolve", str(tmp_path / "evolve.yaml"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    total = next(line.split() for line in printed.splitlines() if line.startswith("in all"))
    calls, prompt_tokens, new_tokens, most = (int(word) for word in total[2:6])
    assert calls == 3001
    assert float(total[6]) == pytest.approx((prompt_tokens + 2 * new_tokens) / 1e6, abs=0.01)
    assert float(total[7]) == pytest.approx((prompt_tokens + 2 * most) / 1e6, abs=0.01)
    assert f"60 requests/min {3001 / 60:.1f} min" in printed
    minutes = (prompt_tokens + new_tokens) / 5_000
    assert f"time: {minutes:.1f} min" in printed or f"time: {minutes / 60:.1f} h" in printed
    assert not config.out.exists()


def test_a_journal_makes_the_estimate_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "make_generator", lambda backend, work: FakeGenerator())
    config = config_for(tmp_path)
    run.run(config)
    printed = forecast.dry_run(config)
    assert "judge 2" in printed and f"(measured in {config.out / 'journal.jsonl'})" in printed


def test_batches_are_two_a_round_if_asked_together(tmp_path: Path):
    backend = OpenAIBatchBackend(base_url="http://localhost/v1", model="m", api_key_env="")
    for together, turns in ((False, 12), (True, 8)):
        calls = CallsConfig(together=together)
        seeds = pool(tmp_path, 20)
        config = config_for(tmp_path, seeds=seeds, rounds=4, calls=calls, generator=backend)
        assert f"time: {1 + turns} turns of batches, at most 24 h each" in forecast.dry_run(config)


def test_wizardlms_run_is_624_000_calls(tmp_path: Path):
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"instruction": "abcd", "output": "x"}\n' * 52_000)
    table = forecast.dry_run(config_for(tmp_path, seeds=path, rounds=4, generator=endpoint()))
    assert next(line.split()[2] for line in table.splitlines() if line.startswith("in all")) == "624000"
