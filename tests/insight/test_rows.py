"""What is read of a run, which lineages are whole, and what is said of folders that hold none."""

import json
import shutil
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.insight import rows
from jaxwiz.insight.rows import InsightError, read_run
from jaxwiz.records import EvolvedTask, read_records


def all_tasks(folder: Path) -> list[EvolvedTask]:
    return [task for name in rows.FILES for task in read_records(folder / name, EvolvedTask)]


def test_every_row_is_in_its_lineage_and_measured_if_kept(evolved: Path):
    run = read_run(evolved)
    assert run.seeds == 25 and list(run.lineages) == sorted(run.lineages)
    listed = [task for lineage in run.lineages.values() for task in lineage]
    assert sorted(listed, key=repr) == sorted(all_tasks(evolved), key=repr)
    assert all([task.round for task in lineage] == [0, 1, 2] for lineage in run.lineages.values())
    kept = [task for task in all_tasks(evolved) if not task.rejected]
    for number, measures in run.measures.items():
        of_round = [task for task in kept if task.round == number]
        assert measures.answer_words == [len(task.output.split()) for task in of_round]
        assert len(measures.difficulties) == len(of_round)
    assert len(run.texts) == len(kept)


def test_lineages_are_a_sample_of_limited_size_and_those_asked_for(evolved: Path):
    sizes = {root: sum(len(task.instruction + task.input + task.output) for task in lineage)
             for root, lineage in read_run(evolved).lineages.items()}  # fmt: skip
    some = read_run(evolved, most_bytes=sum(sizes.values()) // 2).lineages
    assert 8 < len(some) < 20 and sum(sizes[root] for root in some) <= sum(sizes.values()) // 2
    fewer = read_run(evolved, most_bytes=sum(sizes.values()) // 4).lineages
    assert fewer.keys() < some.keys(), "the same seeds first"
    assert list(read_run(evolved, ["s09", "s02"], most_bytes=0).lineages) == ["s09", "s02"]


def test_texts_for_topics_are_the_same_seeds_in_every_round(evolved: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "MOST_SAMPLED_SEEDS", 10)
    texts = read_run(evolved).texts
    seeds = {text for number, text in texts if number == 0}
    assert 3 < len(seeds) < 18
    assert all(any(text.startswith(one) for one in seeds) for _, text in texts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("statistics.json", None, "statistics.json: no such file; give the `out` folder of an evolve run"),
        ("rejected.jsonl", None, "rejected.jsonl: no such file"),
        ("statistics.json", "{", "statistics.json: damaged"),
        ("statistics.json", '{"schema": "x.v9"}', "schema 'x.v9', expected 'jaxwiz.evolve_statistics.v1'"),
        ("evolved.jsonl", "[]\n", "evolved.jsonl:1: list instead of an object"),
    ],
)
def test_a_folder_without_a_whole_run_is_refused(
    name: str, content: str | None, message: str, evolved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = shutil.copytree(evolved, tmp_path / "run")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    assert main(["insight", str(folder)]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_seed_and_a_folder_for_a_page_are_refused(evolved: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(InsightError, match=r"--seed s99: .* has no seed of that id"):
        read_run(evolved, ["s99"])
    assert main(["insight", str(evolved), "--html", str(evolved)]) == 2
    assert "a folder; name the file to write" in capsys.readouterr().err


def test_the_command_prints_the_summary_and_where_the_page_is(
    evolved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    page = tmp_path / "deep" / "page.html"
    assert main(["insight", str(evolved), "--html", str(page), "--mebibytes", "0", "--seed", "s03"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith((evolved / "summary.txt").read_text())
    assert f"{page}, with 1 of 25 lineages" in printed
    assert json.dumps("s03") in page.read_text() and "1 of 25, drawn by chance" in page.read_text()
