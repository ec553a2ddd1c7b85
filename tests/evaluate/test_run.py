"""The whole stage on four tasks: its files and what they say. More of its numbers and page: test_report*.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.cli import main
from jaxwiz.config import parse_config
from jaxwiz.evaluate import run as run_module
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.curve import lay_out_curve
from jaxwiz.evaluate.run import check, run
from jaxwiz.files import UserError
from jaxwiz.records import Verdict, read_records

WriteAnswers = Callable[..., Path]

TRAINING = {
    "heldout_loss_before": 1.5,
    "heldout_loss_after": 1.2,
    "steps": 40,
    "train_tokens": 12345,
    "mfu": 0.3,
    "curve": [[1, 1.6], [20, 1.4], [30, "NaN"], [40, 1.25]],
    "heldout_curve": [[0, 1.5], [40, 1.2]],
}


def make_config(tmp_path: Path, systems: dict[str, Path], **more: Any) -> EvaluateConfig:
    moments = dict(zip(systems, ("before", "after"), strict=False)) if "training" in more else {}
    data = {
        "out": str(tmp_path / "out"),
        "benchmark": {"kind": "humaneval", "limit": 4},
        "systems": {
            label: {"completions": str(path), "heldout": moments.get(label)} for label, path in systems.items()
        },
        "workers": 2,
        **more,
    }
    return parse_config(data, EvaluateConfig, "test")


def test_two_systems_with_training(
    write_answers: WriteAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "machine_factor", lambda: 1.254)  # what is measured differs from run to run
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(TRAINING))
    config = make_config(
        tmp_path,
        {"before": write_answers("b", right=[0]), "after": write_answers("a", right=[0, 1])},
        training=str(summary),
    )
    assert [finding.level for finding in check(config)] == ["ok", "ok"]
    out = run(config)

    verdicts = list(read_records(out / "verdicts.jsonl", Verdict))
    assert [(verdict.system, verdict.task_id, verdict.outcome) for verdict in verdicts][3:6] == [
        ("before", "HumanEval/3", "failed"),
        ("after", "HumanEval/0", "passed"),
        ("after", "HumanEval/1", "passed"),
    ]
    report = json.loads((out / "report.json").read_text())
    assert report["systems"]["before"]["pass_at"]["1"]["value"] == 0.25
    assert report["systems"]["after"]["heldout_loss"] == 1.2
    assert report["comparisons"][0]["p_value"] == 1.0
    assert len(report["benchmark"]["sha256"]) == 64
    assert report["scoring"]["machine_factor"] == 1.25
    lines = (out / "summary.txt").read_text().splitlines()
    assert lines[1].split() == ["before", "1.5000", "25.0%", "4.6%", "to", "69.9%", "4", "1"]
    assert lines[3].startswith("The difference between before and after is within noise: +25.0 points")
    assert lines[4] == "Held-out loss fell from 1.5000 to 1.2000 (-20.0%)."
    page = (out / "report.html").read_text()
    assert "12,345 tokens trained on" in page
    assert 'class="training" points="' in page
    assert "HumanEval/3" in page

    first = {path.name: path.read_bytes() for path in out.iterdir()}
    run(config)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_samples_and_k(write_answers: WriteAnswers, tmp_path: Path) -> None:
    config = make_config(tmp_path, {"m": write_answers("m", right=[0, 1, 2], samples=3)}, k=[1, 2, 10])
    warnings = [finding.message for finding in check(config) if finding.level == "warning"]
    assert warnings == ["k = 10: m has only 3 samples of some task; pass@10 is left out"]
    report = json.loads((run(config) / "report.json").read_text())
    assert list(report["systems"]["m"]["pass_at"]) == ["1", "2"]
    assert report["systems"]["m"]["samples_per_task"] == [3, 3]
    assert report["comparisons"] == []
    assert report["training"] is None


def test_sampling_settings_are_taken_from_beside_the_completions(write_answers: WriteAnswers, tmp_path: Path) -> None:
    path = write_answers("m", right=[])
    (tmp_path / "config.yaml").write_text("stage: sample\nsampling:\n  temperature: 0.2\n")
    out = run(make_config(tmp_path, {"m": path}))
    assert json.loads((out / "report.json").read_text())["systems"]["m"]["sampling"] == {"temperature": 0.2}
    assert '<th scope="row">temperature</th><td>0.2</td>' in (out / "report.html").read_text()


def test_curve_fits_its_frame() -> None:
    assert lay_out_curve([], []) is None
    single = lay_out_curve([], [(0, 1.5)])
    assert single is not None
    assert len(single.heldout_dots) == 1
    curve = lay_out_curve([(1, 3.0), (200, 0.9)], [(0, 2.0)])
    assert curve is not None
    for x, y in (tuple(map(float, point.split(","))) for point in curve.training.split()):
        assert curve.left <= x <= curve.right
        assert curve.top <= y <= curve.bottom
    assert [tick.label for tick in curve.losses] == ["0.5", "1", "1.5", "2", "2.5", "3"]


def test_faults_are_clear_errors(write_answers: WriteAnswers, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text("[]")
    config = make_config(tmp_path, {"m": write_answers("m", right=[])}, training=str(summary))
    with pytest.raises(UserError, match=r"holds list, not an object; give train's summary.json"):
        run(config)
    findings = check(config)
    assert [finding.level for finding in findings] == ["error"]
    assert not config.out.exists()


def test_samples_need_no_config_file(
    write_answers: WriteAnswers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_answers("m", right=[0, 2])
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", f"samples={path}", "benchmark.kind=humaneval", "benchmark.limit=4"]) == 0
    assert (tmp_path / "runs/evaluate/summary.txt").read_text().splitlines()[1].split()[:2] == ["model", "50.0%"]
    assert main(["evaluate", f"samples={path}", f"systems.other.completions={path}"]) == 2
    assert "samples or systems: both are given" in capsys.readouterr().err
    assert main(["evaluate", "k=[1]"]) == 2
    assert "samples or systems: neither is given" in capsys.readouterr().err
    assert main(["evaluate", "samples=nowhere.jsonl"]) == 2
    assert "samples = 'nowhere.jsonl': no such file" in capsys.readouterr().err
