"""The whole stage on four tasks: its files, what they say, and that a page is safe whatever it shows."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.config import parse_config
from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.curve import lay_out_curve
from jaxwiz.evaluate.report import conclusions
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
        "benchmark": {"limit": 4},
        "systems": {
            label: {"completions": str(path), "heldout": moments.get(label)} for label, path in systems.items()
        },
        "workers": 2,
        **more,
    }
    return parse_config(data, EvaluateConfig, "test")


def test_two_systems_with_training(write_answers: WriteAnswers, tmp_path: Path) -> None:
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
    assert report["comparison"]["p_value"] == 1.0
    assert len(report["benchmark"]["sha256"]) == 64
    lines = (out / "summary.txt").read_text().splitlines()
    assert lines[1].split() == ["before", "1.5000", "25.0%", "4.6%", "to", "69.9%", "4", "1"]
    assert lines[3].startswith("The difference between before and after is within noise (+25.0 points")
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
    assert report["comparison"] is None
    assert report["training"] is None


def test_sampling_settings_are_taken_from_beside_the_completions(write_answers: WriteAnswers, tmp_path: Path) -> None:
    path = write_answers("m", right=[])
    (tmp_path / "config.yaml").write_text("stage: sample\nsampling:\n  temperature: 0.2\n")
    out = run(make_config(tmp_path, {"m": path}))
    assert json.loads((out / "report.json").read_text())["systems"]["m"]["sampling"]["sampling"] == {"temperature": 0.2}
    assert "temperature 0.2" in (out / "report.html").read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_page_shows_programs_but_never_becomes_them(write_answers: WriteAnswers, tmp_path: Path) -> None:
    evil = '    raise ValueError("</pre><script>alert(1)</script><img src=//x.example/y>")  # \x00 é\n'
    path = write_answers("m", right=[], wrong=evil)
    path.write_text(path.read_text().replace("é", r"\ud800"))  # a lone surrogate, as JSON can hold it
    page = (run(make_config(tmp_path, {"m": path})) / "report.html").read_text(encoding="utf-8")
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in page
    tags = _Tags()
    tags.feed(page)
    assert not {"script", "img", "iframe", "object"} & set(tags.tags)
    assert all(address.startswith("#") or address == "data:," for address in tags.addresses)
    assert not re.search(r"url\(|@import", page)


@pytest.mark.parametrize(
    ("better", "worse", "significant", "sentence"),
    [
        (0, 0, False, "No task's pass rate differs between a and b"),
        (9, 1, True, "b is better than a ("),
        (1, 9, True, "b is worse than a ("),
        (2, 1, False, "The difference between a and b is within noise ("),
    ],
)
def test_conclusions_say_what_was_measured(better: int, worse: int, significant: bool, sentence: str) -> None:
    comparison = {
        "first": "a",
        "second": "b",
        "better": better,
        "worse": worse,
        "difference": 0.1,
        "p_value": 0.02 if significant else 0.6,
        "significant": significant,
    }
    assert conclusions({"comparison": comparison, "training": None})[0].startswith(sentence)


def test_a_rising_loss_is_said_to_rise() -> None:
    training = {"heldout_loss": {"before": 1.0, "after": 1.5}}
    assert conclusions({"comparison": None, "training": training}) == [
        "Held-out loss rose from 1.0000 to 1.5000 (+50.0%)."
    ]


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
