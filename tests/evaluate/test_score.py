"""Scoring gives published scores, resumes after a kill, and refuses completions that don't fit the benchmark."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxwiz.evaluate import score as score_module
from jaxwiz.evaluate.score import read_completions, score
from jaxwiz.problems.extract import extract
from jaxwiz.problems.humaneval import Problem, load_humaneval
from jaxwiz.records import Completion, RecordError
from jaxwiz.sandbox import Limits

PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/wizardcoder-33b-v1.1-humaneval-vllm.jsonl.gz"
LIMITS = Limits(timeout_s=3.0)

WriteAnswers = Callable[..., Path]


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"needs ../shared/data/{PUBLISHED.name}")
@pytest.mark.parametrize("mode", ["wizardcoder", "robust"])
def test_published_generations_score_131_of_164(mode: str, tmp_path: Path) -> None:
    problems = load_humaneval()
    completions = [
        Completion(
            task_id=row["task_id"],
            sample=0,
            prompt="",
            raw=row["all_code"],
            completion=extract(row["all_code"], problems[row["task_id"]], mode),  # type: ignore[arg-type]
            finish_reason="stop",
            new_tokens=0,
        )
        for row in map(json.loads, gzip.decompress(PUBLISHED.read_bytes()).splitlines())
    ]
    verdicts = score({"33B": completions}, problems, LIMITS, 2, tmp_path / "journal")
    assert sum(verdict.outcome == "passed" for verdict in verdicts) == 131


def test_a_killed_run_goes_on_where_it_was(
    write_answers: WriteAnswers, problems: dict[str, Problem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    completions = {"m": read_completions(write_answers("m", right=[0, 2]), problems, problems)}
    journal = tmp_path / "journal"
    whole = score(completions, problems, LIMITS, 2, journal)
    assert [verdict.outcome for verdict in whole] == ["passed", "failed", "passed", "failed"]

    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + lines[1] + lines[2][:20])  # killed while it wrote the third
    ran = []
    run_programs = score_module.run_programs

    def counted(programs, *args):  # type: ignore[no-untyped-def]
        ran.extend(programs)
        return run_programs(ran, *args)

    monkeypatch.setattr(score_module, "run_programs", counted)
    assert score(completions, problems, LIMITS, 2, journal) == whole
    assert len(ran) == 2

    ran.clear()
    assert score(completions, problems, LIMITS, 2, journal) == whole
    assert ran == []


def test_a_journal_of_other_programs_or_limits_counts_for_nothing(
    write_answers: WriteAnswers, problems: dict[str, Problem], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    wrong = read_completions(write_answers("a", right=[]), problems, problems)
    right = read_completions(write_answers("b", right=[0, 1, 2, 3]), problems, problems)
    assert {verdict.outcome for verdict in score({"m": wrong}, problems, LIMITS, 2, journal)} == {"failed"}
    assert {verdict.outcome for verdict in score({"m": right}, problems, LIMITS, 2, journal)} == {"passed"}
    lines = len(journal.read_bytes().splitlines())
    score({"m": right}, problems, Limits(timeout_s=2.0), 2, journal)
    assert len(journal.read_bytes().splitlines()) == lines + 4


def test_an_empty_completion_fails_even_where_the_tests_accept_it(tmp_path: Path) -> None:
    lenient = Problem("T/0", 'def f():\n    """Does nothing."""\n', "def check(f):\n    f()\n", "f", "")
    path = tmp_path / "c.jsonl"
    path.write_text(_line("T/0", 0, completion=" \n"))
    verdicts = score(
        {"m": read_completions(path, {"T/0": lenient}, {"T/0": lenient})}, {"T/0": lenient}, LIMITS, 1, tmp_path / "j"
    )
    assert [(verdict.outcome, verdict.detail) for verdict in verdicts] == [("failed", "empty completion")]


def test_completions_come_in_the_order_of_tasks_and_samples(problems: dict[str, Problem], tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    order = [(3, 0), (1, 1), (0, 0), (1, 0), (2, 0), (99, 0)]
    path.write_text("".join(_line(f"HumanEval/{task}", sample) for task, sample in order))
    found = read_completions(path, problems, load_humaneval())
    assert [(completion.task_id, completion.sample) for completion in found] == [
        ("HumanEval/0", 0),
        ("HumanEval/1", 0),
        ("HumanEval/1", 1),
        ("HumanEval/2", 0),
        ("HumanEval/3", 0),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("HumanEval/0", 0)], "no completion for 3 of 4 tasks, the first being 'HumanEval/1'"),
        ([("HumanEval/0", 0), ("HumanEval/0", 0)], "task 'HumanEval/0' has sample 0 twice"),
        ([("Mbpp/11", 0)], "'Mbpp/11' is not in the benchmark"),
        ([], "no completion for 4 of 4"),
    ],
)
def test_completions_that_do_not_fit_are_one_clear_error(
    lines: list[tuple[str, int]], message: str, problems: dict[str, Problem], tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(_line(*line) for line in lines))
    with pytest.raises(RecordError, match=message) as caught:
        read_completions(path, problems, load_humaneval())
    assert str(path) in str(caught.value)


def _line(task_id: str, sample: int, completion: str = "    pass\n") -> str:
    record = Completion(
        task_id=task_id, sample=sample, prompt="", raw="", completion=completion, finish_reason="stop", new_tokens=1
    )
    return record.to_json() + "\n"
