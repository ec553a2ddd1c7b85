"""Eliminations that look beyond a task's own texts."""

from pathlib import Path

import pytest

from jaxwiz.evolve.checks import Checks, NearRows, python_of
from jaxwiz.evolve.config import EliminateConfig
from jaxwiz.evolve.journal import Journal
from jaxwiz.llm.recording import read_recording
from tests.evolve.test_engine import Script, evolve, seed

WORDS = [f"word{number}" for number in range(60)]
TEXT = " ".join(WORDS)
ALMOST = " ".join([*WORDS[:58], "other", "end"])
ELSE = " ".join(f"else{number}" for number in range(60))
NEAR = EliminateConfig(decontaminate=(), detectors=("near_duplicate",))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("No code.", ""),
        ("```\nnot marked\n```", ""),
        ("```js\nlet x\n```", ""),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```Python\r\nx = 1\r\n```", "x = 1\r\n"),
        ("```py\nx = 1\n```\nthen\n```python\ny = x\n```", "x = 1\n\ny = x\n"),
        ("```python\nx = \n```\nrather\n```python\ny = 1\n```", "y = 1\n"),
        ("```python\nx = (\n```", None),
        ("  ```python\nx = 1", "x = 1"),
    ],
)
def test_the_python_of_an_answer(answer: str, code: str | None):
    assert python_of(answer) == code


def test_answers_are_run_and_what_is_not_their_fault_is_forgiven():
    faulty = ["1 / 0", "assert []", "undefined", "ImportError_ = undefined"]
    forgiven = ["x = 1", "import no_such_library", "from math import no", "input()", "raise SystemExit(0)", "open('x')"]
    eliminate = EliminateConfig(decontaminate=(), detectors=("runs",), unsafe_no_sandbox=True, timeout_s=1.0)
    with Checks(eliminate) as checks:
        codes = [*faulty, *forgiven, "while True: pass"]
        faults = checks.faults_of_running([f"```python\n{code}\n```" for code in codes])
    assert faults == [*["answer_does_not_run"] * len(faulty), *[""] * len(forgiven), "answer_does_not_end"]


def test_what_a_program_did_is_journaled_since_it_may_do_otherwise_next_time(tmp_path: Path, monkeypatch):
    answers = ["```python\nx = 1\n```", "```python\n1 / 0\n```"]
    wanted = ["", "answer_does_not_run"]
    eliminate = EliminateConfig(decontaminate=(), detectors=("runs",), unsafe_no_sandbox=True)
    with Journal(tmp_path / "journal.jsonl") as journal, Checks(eliminate, None, journal, "m") as checks:
        assert checks.faults_of_running(answers) == wanted
    monkeypatch.setattr("jaxwiz.sandbox.run_programs", None)
    with Journal(tmp_path / "journal.jsonl") as journal, Checks(eliminate, None, journal, "m") as checks:
        assert len(journal) == 2
        assert checks.faults_of_running(answers[::-1]) == wanted[::-1]
    assert {answer.model for answer in read_recording(tmp_path / "journal.jsonl").answers} == {"m"}


def test_without_the_detector_nothing_is_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxwiz.sandbox.run_programs", None)
    with Checks(EliminateConfig(decontaminate=())) as checks:
        assert checks.faults_of_running(["```python\n1 / 0\n```"]) == [""]
        assert checks.near_duplicates([seed("a"), seed("a")]) == [False, False]


def rows(*texts: str) -> list:
    return [seed(f"s{number}", instruction=text, output="") for number, text in enumerate(texts)]


def test_a_row_is_compared_with_all_kept_rows_before_it_and_no_others(tmp_path: Path):
    near = NearRows(NEAR, tmp_path)
    assert near.add(rows(TEXT, ELSE)) == [False, False]
    assert near.add([]) == []
    assert near.add(rows("a b c", ALMOST, ALMOST)) == [False, True, True]
    assert near.add(rows(ELSE, "a b c", "something quite new")) == [True, True, False]
    near.close()
    assert not list(tmp_path.iterdir())


def test_a_near_duplicate_of_an_earlier_round_is_rejected_and_its_parent_tries_again(tmp_path: Path):
    def evolution(title: str, prompt: str) -> str:
        return {"round 1": TEXT, "round 2": ALMOST, "round 3": ELSE}[title.partition(":")[0]]

    seeds = (seed("s", instruction="Sort."), seed("t", instruction="Add."))
    outcome = evolve(tmp_path, Script(evolve=evolution, answer="Yes."), *seeds, rounds=3, eliminate=NEAR)
    assert [task.id for task in outcome.evolved] == ["s/r1", "s/r3"]
    assert {task.id for task in outcome.rejected} == {"t/r1", "s/r2", "t/r2", "t/r3"}
    assert {task.rejected for task in outcome.rejected} == {"near_duplicate"}
