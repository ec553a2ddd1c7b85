"""The stage as a whole: the same bytes whatever the concurrency, and wherever it was killed."""

import random
import time
from pathlib import Path

import pytest

from jaxwiz import files
from jaxwiz.config import load_config, read_config_file
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.llm.config import OpenAIBackend, ReplayBackend
from jaxwiz.records import EvolvedTask, read_records
from jaxwiz.stages import STAGES
from jaxwiz.step import parse_stage_config, run_step
from tests.evolve.fakes import FakeGenerator, config_for, write_seeds
from tests.llm.scripted_server import chat, scripted_server

RESULTS = STAGES["evolve"].results


def results_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def run_with(generator: FakeGenerator, config: EvolveConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: generator)
    return results_of(stage.run(config))


@pytest.fixture
def uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(config, generator, results, journal bytes) of a run that nothing disturbed."""
    config = config_for(tmp_path)
    generator = FakeGenerator()
    results = run_with(generator, config, monkeypatch)
    return config, generator, results, (config.out / "journal.jsonl").read_bytes()


def test_the_fake_run_meets_every_outcome(uninterrupted):
    config, generator, results, _ = uninterrupted
    kept = list(read_records(config.out / "evolved.jsonl", EvolvedTask))
    reasons = {task.rejected for task in read_records(config.out / "rejected.jsonl", EvolvedTask)}
    assert {task.round for task in kept} == {0, 1, 2, 3}
    assert {"evolution_truncated", "leak", "judged_equal"} & reasons
    assert len(set(generator.keys)) == len(generator.keys)
    assert b"kept in 3 round(s)" in results["summary.txt"]


def test_killed_after_any_line_a_restart_ends_alike_and_asks_nothing_twice(uninterrupted, monkeypatch):
    config, generator, results, journal = uninterrupted
    lines = journal.splitlines(keepends=True)
    for count in range(len(lines) + 1):
        for torn in (b"",) if count == len(lines) else (b"", lines[count][:1], lines[count][:-1]):
            (config.out / "journal.jsonl").write_bytes(b"".join(lines[:count]) + torn)
            again = FakeGenerator()
            assert run_with(again, config, monkeypatch) == results
            assert set(again.keys) == set(generator.keys) - {line[9:73].decode() for line in lines[:count]}
            assert len(again.keys) == len(lines) - count


def test_a_run_can_be_replayed_from_its_journal_alone(uninterrupted, tmp_path: Path, monkeypatch):
    _, _, results, journal = uninterrupted
    monkeypatch.undo()
    recording = tmp_path / "recording.jsonl"
    recording.write_bytes(journal)
    replayed = config_for(tmp_path, out=tmp_path / "replayed", generator=ReplayBackend(path=recording))
    assert results_of(stage.run(replayed)) == results
    assert (replayed.out / "journal.jsonl").read_bytes() != b""


def test_another_seed_makes_another_set(uninterrupted, tmp_path: Path, monkeypatch):
    _, _, results, _ = uninterrupted
    other = run_with(FakeGenerator(), config_for(tmp_path, out=tmp_path / "other", seed=1), monkeypatch)
    assert other["evolved.jsonl"] != results["evolved.jsonl"]


def test_one_in_flight_and_64_under_random_latencies_make_the_same_bytes(tmp_path: Path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("TEST_KEY", "k")
    from jaxwiz.llm.protocol import GenerationRequest
    from tests.evolve.fakes import moody

    latencies = random.Random(0)

    def script(prompt: str, before: int):
        time.sleep(latencies.random() * 0.01)
        result = moody(GenerationRequest(prompt, 0, 1, 0.0, 1.0))
        return chat(result.text, result.finish_reason)

    write_seeds(tmp_path / "seeds.jsonl", count=12)
    with scripted_server(script) as server:
        outcomes = []
        for in_flight in (1, 64):
            backend = OpenAIBackend(base_url=server.url, model="m", api_key_env="TEST_KEY", max_in_flight=in_flight)
            config = config_for(tmp_path, out=tmp_path / str(in_flight), generator=backend, rounds=2)
            outcomes.append(results_of(stage.run(config)))
    assert outcomes[0] == outcomes[1]
    assert server.most_at_once > 1
    assert b"TEST_KEY" not in (tmp_path / "64/journal.jsonl").read_bytes()


def test_the_step_runner_finishes_and_then_skips_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: FakeGenerator())
    config = config_for(tmp_path)
    assert run_step(STAGES["evolve"], config) == "finished"
    assert run_step(STAGES["evolve"], config) == "skipped"


def test_a_benchmark_task_among_the_seeds_is_rejected(tmp_path: Path, monkeypatch):
    from jaxwiz.problems.config import HumanEvalConfig
    from jaxwiz.problems.humaneval import load_humaneval
    from jaxwiz.records import Seed, write_records

    problem = load_humaneval()["HumanEval/4"]
    seeds = [Seed(instruction="Sort a list.", output="sorted(x)"), Seed(instruction=problem.prompt, output="x")]
    write_records(tmp_path / "seeds.jsonl", seeds)
    config = config_for(tmp_path, decontaminate=(HumanEvalConfig(),), rounds=1)
    run_with(FakeGenerator(), config, monkeypatch)
    lost = next(read_records(config.out / "rejected.jsonl", EvolvedTask))
    assert (lost.id, lost.rejected) == ("seed-00002", "contaminated")
    assert "seeds lost:  1: contaminated 1" in (config.out / "summary.txt").read_text()


def test_check_counts_seeds_and_bounds_the_calls(tmp_path: Path):
    findings = stage.check(config_for(tmp_path, items_per_round=2))
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "7, of which 4 have no output" in findings[0].message
    assert "at most 22 calls" in findings[1].message  # 3 rounds x 2 items x 3 calls + 4 answers


def test_check_names_what_is_wrong(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    unknown = stage.check(config_for(tmp_path, operations={"in_depth/deeper": 1.0}))
    assert [(finding.level, "in_depth/deeper.txt" in finding.message) for finding in unknown] == [("error", True)]
    backend = OpenAIBackend(base_url="http://localhost/v1", model="m", api_key_env="TEST_KEY")
    findings = stage.check(config_for(tmp_path, generator=backend))
    assert [finding.message for finding in findings if finding.level == "error"] == [
        "generator.api_key_env = 'TEST_KEY': holds no key; export this environment variable, or set the field to '' "
        "for an endpoint without keys"
    ]


@pytest.mark.parametrize("name", ["wizardlm", "wizardcoder", "quickstart"])
def test_the_shipped_recipes_have_their_prompts(name: str, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    data = load_recipe(root / f"configs/evolve/{name}.yaml")
    assert {finding.level for finding in stage.check(data)} == {"ok"}


def load_recipe(path: Path) -> EvolveConfig:
    return parse_stage_config(STAGES["evolve"], read_config_file(path), str(path))


def test_a_config_without_operations_or_with_an_odd_weight_is_refused(tmp_path: Path):
    path = tmp_path / "evolve.yaml"
    path.write_text(
        "out: o\nseeds: s\ngenerator: {kind: openai, base_url: ftp://x, model: m}\noperations: {in_depth/deepen: 0}\n"
    )
    with pytest.raises(files.UserError, match=r"operations\.in_depth/deepen = 0.*greater than 0"):
        load_config(path, EvolveConfig)
