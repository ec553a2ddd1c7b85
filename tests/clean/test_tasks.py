"""What is kept of a benchmark's tasks."""

import json
from pathlib import Path

import pytest

from jaxwiz.clean.tasks import CleanError, Task, load_tasks
from jaxwiz.problems.config import HumanEvalConfig, HumanEvalPlusConfig, MbppConfig
from tests.clean.made import HUMANEVAL, PROMPT, SOLUTION, clean_config
from tests.shared_data import shared_file


def test_a_humaneval_task(tasks: list[Task]):
    task = tasks[0]
    assert (task.task_id, task.benchmarks, task.entry_point) == ("HumanEval/0", ("humaneval",), "drop_pebbles")
    assert task.questions[0] == PROMPT and len(task.questions) == 3
    assert task.questions[2].strip().endswith("left out of the answer altogether.")  # the docstring without examples
    assert task.solution_texts == (PROMPT + SOLUTION, SOLUTION)
    assert task.examples == ("[3, 0, 12], 5", "[3, 5]")
    assert task.test.arities == (2,) and task.test.strength == 6 + 5


def test_an_mbpp_task(tasks: list[Task]):
    task = tasks[2]
    assert (task.task_id, task.entry_point, task.label) == ("Mbpp/11", "burns_on", "Mbpp/11 (mbpp)")
    assert "assert burns_on(8) == True" in task.questions
    assert task.examples[0] == "8" and task.test.strength == 3


def test_a_task_that_two_benchmarks_share_comes_once(tmp_path: Path):
    plus = {**HUMANEVAL[0], "base_input": [[[3, 0, 12], 5]], "plus_input": [], "atol": 0, "contract": ""}
    plus["prompt"] = PROMPT.replace("Take from", "Remove from")
    (tmp_path / "plus.jsonl").write_text(json.dumps(plus) + "\n")
    configs = [HumanEvalPlusConfig(path=tmp_path / "plus.jsonl"), *clean_config(tmp_path).benchmarks]
    used, tasks = load_tasks(configs)
    assert [one.name for one in used] == ["humaneval_plus", "humaneval", "mbpp"]
    assert tasks[0].benchmarks == ("humaneval", "humaneval_plus")
    assert [text.count("Remove from") for text in tasks[0].questions if "def drop" in text] == [0, 1]
    assert not tasks[0].test.inputs  # HumanEval's assertions


def test_a_task_of_evalplus_alone_is_tested_by_its_inputs(tmp_path: Path):
    row = {**HUMANEVAL[0], "base_input": [[[3, 0, 12], 5]], "plus_input": [], "atol": 0, "contract": ""}
    (tmp_path / "plus.jsonl").write_text(json.dumps(row) + "\n")
    _, (task,) = load_tasks([HumanEvalPlusConfig(path=tmp_path / "plus.jsonl")])
    assert task.test.inputs and task.test.arities == (2,) and task.test.strength == 1


def test_what_cannot_be_had_is_said(tmp_path: Path):
    with pytest.raises(CleanError, match=r"clean.benchmarks, mbpp: .*nowhere.jsonl.*leave it out of clean.benchmarks"):
        load_tasks([MbppConfig(path=tmp_path / "nowhere.jsonl")])
    with pytest.raises(CleanError, match="'humaneval' is named twice"):
        load_tasks([HumanEvalConfig(), HumanEvalConfig(limit=1)])


def test_two_splits_of_a_benchmark_are_two(tmp_path: Path):
    clean_config(tmp_path)
    row = json.loads((tmp_path / "mbpp.jsonl").read_text())
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps({**row, "task_id": number}) + "\n" for number in (11, 511)))
    splits = [MbppConfig(path=tmp_path / "mbpp.jsonl", split=split) for split in ("test", "validation")]
    used, tasks = load_tasks(splits)
    assert [one.tasks for one in used] == [1, 1]
    assert [task.task_id for task in tasks] == ["Mbpp/11", "Mbpp/511"]


def test_every_real_task_has_tests_that_can_be_tried():
    _, tasks = load_tasks(
        [
            HumanEvalConfig(),
            MbppConfig(path=shared_file("mbpp-test.jsonl.gz")),
            HumanEvalPlusConfig(path=shared_file("HumanEvalPlus-v0.1.10.jsonl.gz")),
        ]
    )
    assert len(tasks) == 664
    assert [task.task_id for task in tasks if not task.test.arities] == []
    assert [task.task_id for task in tasks if task.test.shared] == ["Mbpp/367"]
