"""The stage as a whole: the same bytes whatever the concurrency, and wherever it was killed."""

import dataclasses
import json
import random
import time
from pathlib import Path

import pytest

from jaxwiz import files
from jaxwiz.config import load_config, read_config_file
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.config import BudgetConfig, EliminateConfig, EvolveConfig
from jaxwiz.llm.config import OpenAIBackend, ReplayBackend
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.records import EvolvedTask, read_records
from jaxwiz.stages import STAGES
from jaxwiz.step import parse_stage_config, run_step
from tests.evolve.fakes import FakeGenerator, config_for, moody, write_seeds
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
        torn = (b"", lines[count][:1], lines[count][:-1])[count % 3] if count < len(lines) else b""
        (config.out / "journal.jsonl").write_bytes(b"".join(lines[:count]) + torn)
        again = FakeGenerator()
        assert run_with(again, config, monkeypatch) == results
        assert set(again.keys) == set(generator.keys) - {line[9:73].decode() for line in lines[:count]}
        assert len(again.keys) == len(lines) - count


def test_verdicts_and_answers_asked_together_are_counted_in_the_order_of_phases(tmp_path: Path, monkeypatch):
    config = config_for(tmp_path)
    config = dataclasses.replace(config, calls=dataclasses.replace(config.calls, together=True))
    results = run_with(FakeGenerator(), config, monkeypatch)  # it answers the last request first
    calls = json.loads(results["statistics.json"])["calls"]
    assert [call["kind"] for call in calls if call["round"] == 1] == ["evolve", "judge", "answer"]
    (config.out / "statistics.json").unlink()
    assert run_with(FakeGenerator(), config, monkeypatch) == results, "from the journal, where they stand otherwise"


def test_a_replay_does_not_run_programs_again(tmp_path: Path, monkeypatch):
    def reply(request: GenerationRequest) -> GenerationResult:
        if request.max_new_tokens != 65:
            return moody(request)
        code = "x = 1" if request.seed % 2 else "1 / 0"
        return GenerationResult(f"```python\n{code}  # {request.seed}\n```", "stop", 5, 5)

    eliminate = EliminateConfig(decontaminate=(), detectors=("runs",), unsafe_no_sandbox=True)
    config = config_for(tmp_path, eliminate=eliminate)
    results = run_with(FakeGenerator(reply), config, monkeypatch)
    assert b"answer_does_not_run" in results["rejected.jsonl"]
    monkeypatch.undo()
    monkeypatch.setattr("jaxwiz.sandbox.run_programs", None)
    again = dataclasses.replace(
        config, out=tmp_path / "replayed", generator=ReplayBackend(path=config.out / "journal.jsonl")
    )
    assert results_of(stage.run(again)) == results


def test_a_verdict_that_was_filtered_is_none(tmp_path: Path, monkeypatch):
    def reply(request: GenerationRequest) -> GenerationResult:
        return GenerationResult("", "content_filter", 5, 0) if request.max_new_tokens == 16 else moody(request)

    run_with(FakeGenerator(reply), config_for(tmp_path), monkeypatch)
    tasks = list(read_records(tmp_path / "out/rejected.jsonl", EvolvedTask))
    assert "judge_filtered" in {task.rejected for task in tasks}
    assert {task.round for task in read_records(tmp_path / "out/evolved.jsonl", EvolvedTask)} == {0}


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
    latencies = random.Random(0)

    def script(prompt: str, before: int):
        time.sleep(latencies.random() * 0.01)
        result = moody(GenerationRequest(prompt, 0, 1, 0.0, 1.0))
        return chat(result.text, result.finish_reason)

    write_seeds(tmp_path / "seeds.jsonl", count=16)
    chosen = {"quotas": {"in_depth/deepen": 0.2}, "rounds": 2}
    chosen["eliminate"] = EliminateConfig(
        decontaminate=(), detectors=("answered_instead", "asks_back", "added_words_only", "near_duplicate")
    )
    with scripted_server(script) as server:
        outcomes = []
        for in_flight in (1, 64):
            backend = OpenAIBackend(base_url=server.url, model="m", api_key_env="TEST_KEY", max_in_flight=in_flight)
            config = config_for(tmp_path, out=tmp_path / str(in_flight), generator=backend, **chosen)
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
    config = config_for(tmp_path, eliminate=EliminateConfig(decontaminate=(HumanEvalConfig(),)), rounds=1)
    run_with(FakeGenerator(), config, monkeypatch)
    lost = next(read_records(config.out / "rejected.jsonl", EvolvedTask))
    assert (lost.id, lost.rejected) == ("seed-00002", "contaminated")
    assert "seeds lost:  1: contaminated 1" in (config.out / "summary.txt").read_text()


def test_check_counts_seeds_and_bounds_the_calls(tmp_path: Path):
    findings = stage.check(config_for(tmp_path, items_per_round=2))
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert "7, of which 4 have no output" in findings[0].message
    assert "at most 22 calls" in findings[1].message  # 3 rounds x 2 items x 3 calls + 4 answers


def test_check_warns_of_a_budget_below_the_estimate(tmp_path: Path):
    small, large = (BudgetConfig(max_tokens=tokens) for tokens in (100, 10**9))
    warnings = [
        finding.message for finding in stage.check(config_for(tmp_path, budget=small)) if finding.level == "warning"
    ]
    assert len(warnings) == 1
    assert warnings[0].startswith("budget.max_tokens = 100: the run is estimated at ")
    assert {finding.level for finding in stage.check(config_for(tmp_path, budget=large))} == {"ok"}


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


def test_verdict_and_answer_asked_together_make_the_same_rows_in_fewer_phases(tmp_path: Path, monkeypatch):
    rows = []
    for together in (False, True):
        config = config_for(tmp_path, out=tmp_path / f"{together}")
        generator = FakeGenerator()
        run_with(
            generator,
            dataclasses.replace(config, calls=dataclasses.replace(config.calls, together=together)),
            monkeypatch,
        )
        rows.append([(config.out / name).read_bytes() for name in ("evolved.jsonl", "rejected.jsonl")])
        assert generator.phases == 1 + config.rounds * (2 if together else 3)
    assert rows[0] == rows[1]


def test_runs_that_share_a_journal_ask_only_what_is_new(uninterrupted, tmp_path: Path, monkeypatch):
    config, generator, results, _ = uninterrupted
    shared = tmp_path / "shared.jsonl"
    asked = []
    for rounds in (1, 2, 3):
        again = FakeGenerator()
        one = dataclasses.replace(config, out=tmp_path / f"to-{rounds}", rounds=rounds, journal=str(shared))
        made = run_with(again, one, monkeypatch)
        asked += again.keys
        assert not (one.out / "journal.jsonl").exists()
    assert made == results
    assert sorted(asked) == sorted(generator.keys)
    # Any round's set can be rebuilt from the journal alone.
    monkeypatch.undo()
    replayed = dataclasses.replace(
        one, out=tmp_path / "rebuilt", rounds=2, generator=ReplayBackend(path=shared), journal=""
    )
    assert results_of(stage.run(replayed)) == results_of(tmp_path / "to-2")


def test_what_says_how_fast_to_ask_does_not_begin_a_run_anew(tmp_path: Path, monkeypatch):
    from jaxwiz.step import step_state

    monkeypatch.setenv("TEST_KEY", "k")
    backend = OpenAIBackend(base_url="http://localhost/v1", model="m", api_key_env="TEST_KEY")
    config = config_for(tmp_path, generator=backend)
    before = step_state(STAGES["evolve"], config).fingerprint
    changes = ({"max_in_flight": 1}, {"timeout_s": 1.0}, {"requests_per_minute": 5}, {"api_key_env": "OTHER"})
    for change in changes:
        other = dataclasses.replace(config, generator=dataclasses.replace(backend, **change))
        assert step_state(STAGES["evolve"], other).fingerprint == before
    other = dataclasses.replace(config, generator=dataclasses.replace(backend, model="other"))
    assert step_state(STAGES["evolve"], other).fingerprint != before


def test_memory_holds_the_pool_and_not_what_was_decided(tmp_path: Path, monkeypatch):
    """Rows and answers of 20 rounds would be 10 times those of two."""
    import tracemalloc

    def reply(request: GenerationRequest) -> GenerationResult:
        result = moody(request)
        return dataclasses.replace(result, text=result.text + 20_000 * "x")

    peaks = []
    for rounds in (2, 20):
        generator = FakeGenerator(reply)
        generator.requests = NoList()
        monkeypatch.setattr(stage, "make_generator", lambda backend, work, generator=generator: generator)
        tracemalloc.start()
        stage.run(config_for(tmp_path, out=tmp_path / str(rounds), rounds=rounds))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


class NoList(list):
    """Forgets what is put in."""

    def __iadd__(self, other):
        return self
