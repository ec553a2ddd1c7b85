"""The faults of existing Evol-Instruct tools, each of which must not happen here.

Tests for the entries of the list in docs/evolving.md, "What other tools get wrong", but for three: of the budget
(test_budget.py), of the order of completion (test_run.py) and of rounds that are scored (tests/evolve_loop).
"""

import json
from pathlib import Path

import pytest

from jaxwiz.evolve.config import EliminateConfig
from jaxwiz.evolve.eliminate import parse_verdict
from jaxwiz.llm.protocol import GenerationResult
from jaxwiz.problems.config import HumanEvalConfig
from jaxwiz.problems.humaneval import load_humaneval
from tests.evolve.fakes import config_for
from tests.evolve.test_engine import Script, evolve, seed
from tests.evolve.test_operations import HARD_TEXTS

CODE = "if a < b && c > \"d\" and e != 'f': g &= 1  # &lt; {x} %s"


def failing_for(name: str) -> Script:
    """Every call about task `name` fails, all others succeed with texts that name their task."""

    def evolution(title: str, prompt: str) -> GenerationResult:
        names = [one for one in "abcd" if f"Task {one}" in prompt]
        return GenerationResult("" if names == [name] else f"Harder Task {names[0]}.", "stop", 1, 1)

    return Script(evolve=evolution, answer=lambda title, prompt: f"Answer to: {prompt}")


@pytest.mark.parametrize("name", "abcd")
def test_one_failed_generation_fails_one_item(tmp_path: Path, name: str):
    outcome = evolve(tmp_path, failing_for(name), *(seed(one) for one in "abcd"), rounds=1)
    assert [task.id for task in outcome.evolved] == [f"{one}/r1" for one in "abcd" if one != name]
    assert [(task.id, task.rejected) for task in outcome.rejected] == [(f"{name}/r1", "evolution_empty")]


def test_answers_stay_with_their_instructions_when_several_rounds_are_kept(tmp_path: Path):
    outcome = evolve(tmp_path, failing_for("b"), *(seed(one) for one in "abcd"), rounds=3)
    assert len(outcome.evolved) == 9 - 6  # a second evolution of the same words is "unchanged"
    for task in outcome.evolved:
        assert task.output == f"Answer to: {task.instruction}"
        assert f"Task {task.root}" in task.instruction


@pytest.mark.parametrize(
    "text", ["There are 20. Then 21.\n\n20. x", "Question:\nx", "###\n\n### Instruction:\nx", "Human:"]
)
def test_no_stop_string_cuts_a_text(tmp_path: Path, text: str):
    script = Script(evolve=f"Task {text}", answer=f"Answer {text}")
    outcome = evolve(tmp_path, script, seed("s"), rounds=1)
    assert [(task.instruction, task.output) for task in outcome.evolved] == [(f"Task {text}", f"Answer {text}")]
    assert config_for(tmp_path).calls.evolve.__dataclass_fields__.keys().isdisjoint({"stop"})


def test_parents_stay_in_the_set_beside_their_children(tmp_path: Path):
    script = Script(evolve=lambda title, prompt: f"A task of {title}.")
    outcome = evolve(tmp_path, script, seed("s"), rounds=3)
    assert {task.id for task in outcome.training_set(0)} == {"s", "s/r1", "s/r2", "s/r3"}


@pytest.mark.parametrize("text", [CODE, *HARD_TEXTS])
def test_nothing_escapes_a_text_on_its_way(tmp_path: Path, text: str):
    text = f"Task {text} end"
    script = Script(evolve=f"Harder {text}", answer=f"Answer {text}")
    outcome = evolve(tmp_path, script, seed("s", instruction=text, input=text), rounds=1)
    assert f"{text}\n\n{text}" in script.prompts("round 1: evolve")[0]
    assert f"{text}\n\n{text}" in script.prompts("round 1: judge")[0]
    assert script.prompts("round 1: answer") == [f"Harder {text}"]
    assert [(task.instruction, task.output) for task in outcome.evolved] == [(f"Harder {text}", f"Answer {text}")]
    assert json.loads(outcome.evolved[0].to_json())["instruction"] == f"Harder {text}"


def test_not_equal_is_not_equal(tmp_path: Path):
    assert "equal" in "Not Equal".lower()  # what the other tool looks for
    assert parse_verdict("Not Equal") == "not_equal"
    assert [task.id for task in evolve(tmp_path, Script(judge="Not Equal"), seed("s"), rounds=1).evolved] == ["s/r1"]


def test_there_are_four_rules_and_a_failed_evolutions_parent_returns_to_the_pool(tmp_path: Path):
    failures = {
        "round 1": {"judge": "Equal"},
        "round 2": {"answer": "Sorry, no."},
        "round 3": {"answer": "the, of ..."},
        "round 4": {"evolve": "#Rewritten Prompt#: x"},
        "round 5": {},
    }
    usual = {"evolve": "A harder task.", "judge": "Not Equal", "answer": "An answer."}

    def reply(kind: str):
        return lambda title, prompt: failures[title.partition(":")[0]].get(kind, usual[kind])

    script = Script(**{kind: reply(kind) for kind in usual})
    outcome = evolve(tmp_path, script, seed("s"), rounds=5)
    assert [task.rejected for task in outcome.rejected] == ["judged_equal", "apology", "answer_empty", "leak"]
    assert {task.parent for task in (*outcome.rejected, *outcome.evolved)} == {"s"}
    assert [(task.id, task.attempt) for task in outcome.evolved] == [("s/r5", 4)]


def test_benchmark_tasks_are_kept_out_in_every_round(tmp_path: Path):
    problem = load_humaneval()["HumanEval/4"]

    def reply(title: str, prompt: str) -> str:
        return problem.prompt if title.startswith("round 2") else "A harder task."

    eliminate = EliminateConfig(decontaminate=(HumanEvalConfig(),), detectors=())
    outcome = evolve(tmp_path, Script(evolve=reply), seed("s"), rounds=3, eliminate=eliminate)
    assert [(task.id, task.rejected) for task in outcome.rejected] == [("s/r2", "contaminated"), ("s/r3", "unchanged")]


def test_an_operation_keeps_its_quota(tmp_path: Path):
    operations = {"code/complexity": 5.0, "code/add_constraint": 1.0}
    seeds = [seed(f"s{number}") for number in range(20)]
    outcome = evolve(tmp_path, Script(), *seeds, rounds=2, operations=operations, quotas={"code/complexity": 0.15})
    for counts in outcome.statistics["rounds"]:
        assert counts["operations"]["code/complexity"]["tried"] == 3
        assert counts["operations"]["code/add_constraint"]["tried"] == 17


def test_acceptance_is_counted_by_operation_and_reason(tmp_path: Path):
    def judge(title: str, prompt: str) -> str:
        return "Equal" if "Task s1." in prompt else "Not Equal"

    seeds = [seed(f"s{number}") for number in range(3)]
    outcome = evolve(tmp_path, Script(judge=judge), *seeds, rounds=1, operations={"code/add_constraint": 1.0})
    counts = {"tried": 3, "kept": 2, "rejected": {"judged_equal": 1}}
    assert outcome.statistics["rounds"][0]["operations"] == {"code/add_constraint": counts}
    assert outcome.statistics["rounds"][0]["verdicts"] == {"equal": 1, "not_equal": 2, "unclear": 0}


def test_an_evolved_answer_that_does_not_run_is_found_by_running_it(tmp_path: Path):
    answers = {"s0": "print(1)", "s1": "print(undefined)", "s2": "print(", "s3": ""}

    def answer(title: str, prompt: str) -> str:
        code = answers[prompt.split()[-1]]
        return f"So:\n```python\n{code}\n```" if code else "No code."

    def evolution(title: str, prompt: str) -> str:
        return "Harder " + next(name for name in answers if f"Task {name}." in prompt)

    eliminate = EliminateConfig(decontaminate=(), detectors=("runs",), unsafe_no_sandbox=True)
    script = Script(evolve=evolution, answer=answer)
    outcome = evolve(tmp_path, script, *(seed(name) for name in answers), rounds=1, eliminate=eliminate)
    assert [task.id for task in outcome.evolved] == ["s0/r1", "s3/r1"]
    assert [(task.id, task.rejected) for task in outcome.rejected] == [
        ("s1/r1", "answer_does_not_run"),
        ("s2/r1", "answer_does_not_parse"),
    ]
