"""Three formats of completions are read; those that don't fit the benchmark are one clear error."""

import json
from pathlib import Path

import pytest

from jaxwiz.evaluate.answers import read_completions
from jaxwiz.problems.humaneval import load_humaneval
from jaxwiz.problems.problem import Problem
from jaxwiz.records import Completion, RecordError


def test_completions_come_in_the_order_of_tasks_and_samples(problems: dict[str, Problem], tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    order = [(3, 0), (1, 1), (0, 0), (1, 0), (2, 0), (99, 0)]
    path.write_text("".join(line(f"HumanEval/{task}", sample) for task, sample in order))
    found = read_completions(path, problems, load_humaneval())
    assert [(completion.task_id, completion.sample) for completion in found] == [
        ("HumanEval/0", 0),
        ("HumanEval/1", 0),
        ("HumanEval/1", 1),
        ("HumanEval/2", 0),
        ("HumanEval/3", 0),
    ]


def test_the_formats_of_other_harnesses(problems: dict[str, Problem], tmp_path: Path) -> None:
    rows = [
        {"task_id": "HumanEval/0", "solution": "def f(): pass", "_identifier": "x"},
        {"task_id": "HumanEval/0", "completion": "    pass", "result": "passed"},
        {"task_id": "HumanEval/1", "completion": "\ud800 lone"},
    ]
    path = tmp_path / "s.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    two = {task_id: problems[task_id] for task_id in ("HumanEval/0", "HumanEval/1")}
    found = read_completions(path, two, problems)
    assert [(one.sample, one.completion, one.whole_program, one.finish_reason) for one in found] == [
        (0, "def f(): pass", True, ""),
        (1, "    pass", False, ""),
        (0, "\ud800 lone", False, ""),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("HumanEval/0", 0)], r"no completion for 3 of 4 tasks \(HumanEval/1, HumanEval/2, HumanEval/3\)"),
        ([("HumanEval/0", 0), ("HumanEval/0", 0)], "HumanEval/0 sample 0: there twice"),
        ([("Mbpp/11", 0)], r"Mbpp/11: not in the benchmark \(HumanEval/0 to HumanEval/163\)(.|\n)*no completion for 4"),
        ([], "no completion for 4 of 4"),
    ],
)
def test_completions_that_do_not_fit_are_one_clear_error(
    lines: list[tuple[str, int]], message: str, problems: dict[str, Problem], tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(line(*one) for one in lines))
    with pytest.raises(RecordError, match=message) as caught:
        read_completions(path, problems, load_humaneval())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"task_id": "HumanEval/0"}', ":1: field 'completion' is missing"),
        (b'{"task_id": 3, "solution": ""}', ":1: field 'task_id' is 3"),
        (b'\n{"task_id": "HumanEval/0", "solution": ["a"]}', ":2: field 'solution' is"),
        (b"[1]", ":1: list instead of an object"),
        (b"{", ":1: not JSON"),
        (b"[" * 100_000, ":1: not JSON"),
        (b'{"task_id": "\xff"}', "not UTF-8"),
        (b'{"schema": "jaxwiz.verdict.v1"}', "schema 'jaxwiz.verdict.v1'"),
    ],
)
def test_a_line_that_is_no_completion_is_one_clear_error(
    data: bytes, message: str, problems: dict[str, Problem], tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(data)
    with pytest.raises(RecordError, match=message):
        read_completions(path, problems, problems)


def test_a_missing_file_is_one_clear_error(problems: dict[str, Problem], tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read completions"):
        read_completions(tmp_path / "none.jsonl", problems, problems)


def line(task_id: str, sample: int, completion: str = "    pass\n") -> str:
    record = Completion(
        task_id=task_id, sample=sample, prompt="", raw="", completion=completion, finish_reason="stop", new_tokens=1
    )
    return record.to_json() + "\n"
