"""Scores of difficulty: how replies are read, what is scored, and what a budget leaves without a score."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxwiz.evolve import forecast
from jaxwiz.evolve import run as stage
from jaxwiz.evolve.account import BudgetError
from jaxwiz.evolve.config import BudgetConfig, CallConfig, CallsConfig
from jaxwiz.evolve.eliminate import parse_score
from jaxwiz.evolve.operations import PromptError, load_prompts
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult
from jaxwiz.records import EvolvedTask, read_records
from jaxwiz.stages import STAGES
from tests.evolve.fakes import FakeGenerator, config_for, moody
from tests.evolve.test_engine import Script, evolve, seed

CALLS = CallsConfig(
    evolve=CallConfig(max_new_tokens=64),
    answer=CallConfig(max_new_tokens=65),
    difficulty=CallConfig(max_new_tokens=8, temperature=0.0, top_p=1.0),
)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("7", 7),
        (" 10\n", 10),
        ("1.", 1),
        ("Score: 8", 8),
        ("**6**", 6),
        ("7/10", 7),
        ("7 / 10.", 7),
        ("7 out of 10", 7),
        ("On a scale from 1 to 10: 4", 4),
        ("5\nIt has 3 requirements.", 5),
        ("0", 0),
        ("11", 0),
        ("-3", 0),
        ("7.5", 0),
        ("between 6 and 8", 0),
        ("6-8", 0),
        ("seven", 0),
        ("", 0),
        ("It depends on 3 things.\n7", 3),
        ("٣", 3),
    ],
)
def test_a_reply_is_a_score_or_nothing(reply: str, score: int):
    assert parse_score(reply) == score


def test_seeds_and_kept_evolutions_are_scored_and_nothing_else(tmp_path: Path):
    script = Script(
        evolve=lambda title, prompt: "Harder than a." if "Task a." in prompt else "given prompt",
        difficulty=lambda title, prompt: "3" if title.startswith("round 0") else "5/10",
    )
    made = evolve(tmp_path, script, seed("a"), seed("b"), rounds=1, calls=CALLS)
    assert [(task.id, task.difficulty) for task in made.seeds] == [("a", 3), ("b", 3)]
    assert [(task.id, task.difficulty) for task in made.evolved] == [("a/r1", 5)]
    assert [(task.id, task.rejected, task.difficulty) for task in made.rejected] == [("b/r1", "leak", 0)]
    (asked,) = script.prompts("round 1: difficulty")
    assert "Harder than a." in asked and "Task a." not in asked
    assert made.statistics["seeds"]["difficulty"] == 3.0
    assert made.statistics["rounds"][0]["difficulty"] == 5.0


def test_nobody_is_asked_unless_the_config_says_so(tmp_path: Path):
    script = Script()
    made = evolve(tmp_path, script, seed("a"), rounds=1)
    assert not [title for title, _ in script.asked if "difficulty" in title]
    assert made.evolved[0].difficulty == 0 and made.statistics["rounds"][0]["difficulty"] is None


def test_a_task_passes_through_the_prompt_and_the_prompt_may_be_ones_own(tmp_path: Path):
    hard = "<<TASK>> {x} %s <b> &\r\n\t```"
    assert hard in load_prompts([]).difficulty.render(task=hard)
    (tmp_path / "difficulty.txt").write_text("How hard? <<TASK>>")
    assert load_prompts([], tmp_path).difficulty.render(task=hard) == f"How hard? {hard}"
    (tmp_path / "difficulty.txt").write_text("How hard?")
    with pytest.raises(PromptError, match=r"difficulty.txt: has the slots \[\]; it must have each of \['TASK'\]"):
        load_prompts([], tmp_path)


def scored(request: GenerationRequest) -> GenerationResult:
    if "Reply with the score alone" in request.prompt:
        return GenerationResult(str(request.seed % 10 + 1), "stop", 40, 1)
    return moody(request)


def test_a_budget_may_end_among_the_scores_and_a_larger_one_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = FakeGenerator(scored)
    monkeypatch.setattr(stage, "make_generator", lambda backend, work: generator)

    def results(folder: Path) -> dict[str, bytes]:
        return {name: (folder / name).read_bytes() for name in STAGES["evolve"].results}

    config = config_for(tmp_path, out=tmp_path / "whole", rounds=1, calls=CALLS)
    whole = results(stage.run(config))
    calls = json.loads(whole["statistics.json"])["calls"]
    taken = sum(one["prompt_tokens"] + one["new_tokens"] for one in calls)
    limited = dataclasses.replace(config, out=tmp_path / "out", budget=BudgetConfig(max_tokens=taken))
    with pytest.raises(
        BudgetError
    ):  # the last answers fit in what they took, the scores' long prompts are reckoned dear
        stage.run(limited)
    evolved = list(read_records(limited.out / "evolved.jsonl", EvolvedTask))
    assert [task.output for task in evolved if task.round and not task.difficulty]
    assert json.loads((limited.out / "statistics.json").read_text())["complete"] is False
    assert "scores of difficulty wait for a larger budget" in (limited.out / "summary.txt").read_text()
    stage.run(dataclasses.replace(limited, budget=BudgetConfig()))
    assert results(limited.out) == whole
    assert sorted(generator.keys) == sorted(2 * list(set(generator.keys))), "both runs asked for everything once"


def test_a_forecast_counts_the_scores(tmp_path: Path):
    config = config_for(tmp_path, rounds=1, calls=CALLS, items_per_round=3)
    stages = forecast.forecast(stage.read_seeds(config.seeds), config, load_prompts(config.operations), {})
    asked = {one.title: (one.calls, one.new_tokens, one.most_new_tokens) for one in stages}
    assert asked["round 0: difficulty"] == (7, 14, 56)
    assert asked["round 1: difficulty"] == (3, 6, 24)
