"""The algorithm's semantics: what is kept, what returns to the pool, what is never asked."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.evolve import engine
from jaxwiz.evolve.account import Account
from jaxwiz.evolve.checks import Checks
from jaxwiz.evolve.config import EliminateConfig
from jaxwiz.evolve.operations import load_prompts
from jaxwiz.evolve.pool import SeedError, read_seeds
from jaxwiz.evolve.rows import Evolution
from jaxwiz.llm.protocol import GenerationResult
from jaxwiz.records import EvolvedTask
from tests.evolve.fakes import config_for

GOOD = {"evolve": lambda title, prompt: f"A task of {title}.", "judge": "Not Equal", "answer": "An answer."}


class Script:
    """Answers by kind and round; `replies` maps a kind to a text, a result, or a function of (title, prompt)."""

    def __init__(self, **replies) -> None:
        self.replies = {**GOOD, **replies}
        self.asked: list[tuple[str, str]] = []  # (title, prompt)

    def __call__(self, calls, title):
        results = []
        for call in calls:
            self.asked.append((title, call.request.prompt))
            reply = self.replies[call.kind]
            reply = reply(title, call.request.prompt) if callable(reply) else reply
            results.append(reply if isinstance(reply, GenerationResult) else GenerationResult(reply, "stop", 1, 1))
        return results

    def prompts(self, title: str) -> list[str]:
        return [prompt for name, prompt in self.asked if name == title]


def seed(name: str, **fields) -> EvolvedTask:
    base = {"id": name, "root": name, "instruction": f"Task {name}.", "input": "", "output": "known", "parent": ""}
    return EvolvedTask(**{**base, "operation": "seed", "round": 0, "attempt": 0, **fields})


def evolve(tmp_path: Path, script: Script, *seeds: EvolvedTask, is_contaminated=None, **changes) -> Evolution:
    config = config_for(tmp_path, **changes)
    outcome = Evolution()
    with Checks(config.eliminate, tmp_path) as checks:
        if is_contaminated:
            checks.is_contaminated = is_contaminated
        statistics = engine.evolve(seeds, config, load_prompts(config.operations), script, checks, outcome.add)
    outcome.statistics = statistics.to_json(Account(), "script", config.rounds)
    return outcome


def test_an_accepted_child_is_the_parent_of_the_next_round(tmp_path: Path):
    script = Script(evolve=lambda title, prompt: f"Harder, made in {title}.")
    outcome = evolve(tmp_path, script, seed("s"), rounds=2)
    first, second = outcome.evolved
    assert (first.id, first.parent, first.root, first.round) == ("s/r1", "s", "s", 1)
    assert (second.id, second.parent, second.root, second.round) == ("s/r2", "s/r1", "s", 2)
    assert "Harder, made in round 1: evolve." in script.prompts("round 2: evolve")[0]
    assert outcome.seeds == [seed("s")]


def test_a_rejected_childs_parent_returns_to_the_pool_and_is_tried_again(tmp_path: Path):
    script = Script(judge=lambda title, prompt: "Equal" if title < "round 3" else "Not Equal")
    outcome = evolve(tmp_path, script, seed("s"), rounds=4, operations={"in_depth/deepen": 1.0})
    assert [(task.id, task.parent, task.attempt, task.rejected) for task in outcome.rejected] == [
        ("s/r1", "s", 0, "judged_equal"),
        ("s/r2", "s", 1, "judged_equal"),
    ]
    assert [(task.id, task.parent, task.attempt) for task in outcome.evolved] == [("s/r3", "s", 2), ("s/r4", "s/r3", 0)]
    prompts = [script.prompts(f"round {number}: evolve")[0] for number in (1, 2, 3)]
    assert len(set(prompts)) == 1


def test_an_evolution_is_answered_alone_and_a_parents_input_is_part_of_it(tmp_path: Path):
    script = Script()
    evolve(tmp_path, script, seed("s", input="a,b\r\n"), rounds=1)
    assert "Task s.\n\na,b\r\n" in script.prompts("round 1: evolve")[0]
    assert script.prompts("round 1: answer") == ["A task of round 1: evolve."]


def test_what_is_rejected_costs_no_further_calls(tmp_path: Path):
    script = Script(evolve="Rewritten prompt: x")
    outcome = evolve(tmp_path, script, seed("s"), rounds=1)
    assert [task.rejected for task in outcome.rejected] == ["leak"]
    assert [title for title, _ in script.asked] == ["round 1: evolve"]
    script = Script(judge="Equal")
    evolve(tmp_path, script, seed("s"), rounds=1)
    assert [title for title, _ in script.asked] == ["round 1: evolve", "round 1: judge"]


def test_one_failed_item_leaves_its_neighbours_alone(tmp_path: Path):
    def reply(title: str, prompt: str) -> GenerationResult:
        failed = "Task b." in prompt
        text = "" if failed else f"Harder than {'a' if 'Task a.' in prompt else 'c'}"
        return GenerationResult(text, "content_filter" if failed else "stop", 1, 1)

    script = Script(evolve=reply, answer=lambda title, prompt: f"Answer to: {prompt}")
    outcome = evolve(tmp_path, script, seed("a"), seed("b"), seed("c"), rounds=1)
    assert [task.id for task in outcome.evolved] == ["a/r1", "c/r1"]
    assert [(task.id, task.rejected) for task in outcome.rejected] == [("b/r1", "evolution_filtered")]
    assert all(task.output == f"Answer to: {task.instruction}".strip() for task in outcome.evolved)


def test_text_is_never_cut_at_a_stop_string(tmp_path: Path):
    text = "List 20. things\n\n### then\n\n21. others"
    outcome = evolve(tmp_path, Script(evolve=text, answer=text), seed("s"), rounds=1)
    assert (outcome.evolved[0].instruction, outcome.evolved[0].output) == (text, text)


def test_an_answers_indentation_is_kept(tmp_path: Path):
    outcome = evolve(tmp_path, Script(answer="\n    return a < b && c\n"), seed("s"), rounds=1)
    assert outcome.evolved[0].output == "    return a < b && c"


@pytest.mark.parametrize(("unclear_verdict", "rejected"), [("keep", []), ("reject", ["judged_unclear"])])
def test_an_unclear_verdict_is_counted_and_does_what_the_config_says(tmp_path: Path, unclear_verdict, rejected):
    script = Script(judge="Both ask for a list.")
    outcome = evolve(
        tmp_path,
        script,
        seed("s"),
        rounds=1,
        eliminate=EliminateConfig(decontaminate=(), unclear_verdict=unclear_verdict),
    )
    assert [task.rejected for task in outcome.rejected] == rejected
    assert outcome.statistics["rounds"][0]["verdicts"] == {"equal": 0, "not_equal": 0, "unclear": 1}


def test_a_seed_without_output_is_answered_first(tmp_path: Path):
    script = Script(answer=lambda title, prompt: f"Answer: {prompt}")
    outcome = evolve(tmp_path, script, seed("a"), seed("b", output="", input="in"), rounds=1)
    assert script.prompts("round 0: answer") == ["Task b.\n\nin"]
    assert [task.output for task in outcome.seeds] == ["known", "Answer: Task b.\n\nin"]


def test_a_seed_that_cannot_be_answered_is_rejected_but_still_evolves(tmp_path: Path):
    script = Script(answer=lambda title, prompt: "Sorry." if title.startswith("round 0") else "Fine.")
    outcome = evolve(tmp_path, script, seed("a", output=""), rounds=1)
    assert outcome.seeds == []
    assert [(task.id, task.rejected, task.output) for task in outcome.rejected] == [("a", "apology", "Sorry.")]
    assert [(task.id, task.parent) for task in outcome.evolved] == [("a/r1", "a")]


def test_contaminated_seeds_leave_the_pool_and_contaminated_evolutions_are_rejected(tmp_path: Path):
    def is_contaminated(task: EvolvedTask) -> bool:
        return "bench" in task.instruction + task.output

    def reply(title: str, prompt: str) -> str:
        return "bench task" if "Task b." in prompt else "A task."

    script = Script(evolve=reply, answer=lambda title, prompt: "bench answer")
    seeds = (seed("a", output="bench"), seed("b"), seed("c"))
    outcome = evolve(tmp_path, script, *seeds, rounds=1, is_contaminated=is_contaminated)
    assert [(task.id, task.rejected) for task in outcome.rejected] == [
        ("a", "contaminated"),
        ("b/r1", "contaminated"),
        ("c/r1", "contaminated"),
    ]
    assert len(script.prompts("round 1: answer")) == 1  # b/r1 was rejected for its instruction already


def test_only_so_many_items_evolve_in_a_round(tmp_path: Path):
    seeds = [seed(f"s{number}") for number in range(30)]
    outcome = evolve(tmp_path, Script(), *seeds, rounds=2, items_per_round=4)
    assert [sum(task.round == number for task in outcome.evolved) for number in (1, 2)] == [4, 4]
    assert len(outcome.seeds) == 30


def test_the_training_set_is_seeds_and_all_rounds_shuffled_by_the_seed(tmp_path: Path):
    outcome = evolve(tmp_path, Script(), *(seed(f"s{number}") for number in range(10)), rounds=2)
    names = [task.id for task in outcome.training_set(0)]
    assert sorted(names) == sorted(f"s{number}{suffix}" for number in range(10) for suffix in ("", "/r1", "/r2"))
    assert names != [task.id for task in outcome.training_set(1)]
    assert names == [task.id for task in dataclasses.replace(outcome, seeds=outcome.seeds[::-1]).training_set(0)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "holds no seed"),
        ('{"instruction": " "}', "seed-00001.*empty instruction"),
        ('{"instruction": "x", "id": "a"}\n{"instruction": "y", "id": "a"}', "'a' is given to two seeds"),
        ('{"instruction": "x", "id": "a"}\n{"instruction": "y", "id": "a/r2"}', "'a/r2' would clash"),
        ('{"instruction": "\\ud800"}', "surrogate"),
    ],
)
def test_a_faulty_seed_file_is_told(tmp_path: Path, lines: str, message: str):
    path = tmp_path / "seeds.jsonl"
    path.write_text(lines)
    with pytest.raises(SeedError, match=message):
        read_seeds(path)
