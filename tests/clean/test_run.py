"""Cleaning as a whole: one answer for each row in its order, whatever the blocks, the engine and the interruptions."""

import json
from pathlib import Path

import pytest

from jaxwiz.clean import blocks, run
from jaxwiz.clean.config import CleanConfig
from jaxwiz.clean.report import write_report
from jaxwiz.clean.run import check_clean, find_exclusions
from jaxwiz.clean.tasks import CleanError
from jaxwiz.clean.texts import Exclusion, Text
from jaxwiz.config import parse_config
from jaxwiz.fanout import RayEngine
from jaxwiz.problems.config import MbppConfig
from tests.clean.made import PROMPT, SOLUTION, clean_config
from tests.clean.test_execute import RENAMED

STORY = "Once upon a time a {} miller had a very old donkey who had carried sacks to the mill for many long years."


def sample_rows() -> list[Text]:
    rows = [Text(f"rows.jsonl:{n}", f"Tell story {n}.", f"Story number {n} is about {n * 7} birds.") for n in range(30)]
    rows[5] = Text("rows.jsonl:5", PROMPT, SOLUTION)
    rows[7] = Text("rows.jsonl:7", "Go.", RENAMED)
    rows[9] = Text("rows.jsonl:9", "tell  STORY 3.", "Story number 3 is about 21 birds.")
    rows[12] = Text("rows.jsonl:12", STORY.format("poor"), "So it was. " * 20 + STORY.format("poor"))
    rows[20] = Text("rows.jsonl:20", STORY.format("poor"), "So it was. " * 20 + STORY.format("rich"))
    rows[25] = Text("rows.jsonl:25", PROMPT, SOLUTION)
    return rows


def expected() -> dict[int, tuple[str, str, str]]:
    """Row number to (reason, tier, match)."""
    return {
        5: ("contaminated", "equal", "HumanEval/0 (humaneval)"),
        7: ("contaminated", "tests", "HumanEval/0 (humaneval)"),
        9: ("duplicate", "exact", "rows.jsonl:3"),
        20: ("near_duplicate", "near", "rows.jsonl:12"),
        25: ("contaminated", "equal", "HumanEval/0 (humaneval)"),  # though it repeats row 5
    }


def told(answers: list[Exclusion | None]) -> dict[int, tuple[str, str, str]]:
    return {number: (one.reason, one.tier, one.match) for number, one in enumerate(answers) if one}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (run, blocks):
        monkeypatch.setattr(module, "ROWS_PER_BLOCK", 8)


def test_each_row_gets_its_answer(tmp_path: Path):
    answers = list(find_exclusions(iter(sample_rows()), clean_config(tmp_path), tmp_path / "work"))
    assert len(answers) == 30 and told(answers) == expected()
    assert answers[20].detail.startswith("estimated similarity 0.") and answers[20].key == "rows.jsonl:20"


def test_blocks_change_nothing(tmp_path: Path, small_blocks: None):
    assert told(list(find_exclusions(sample_rows(), clean_config(tmp_path), tmp_path / "work"))) == expected()


def test_an_interrupted_run_makes_only_what_is_missing(tmp_path: Path, small_blocks: None, monkeypatch):
    config, work, made = clean_config(tmp_path), tmp_path / "work", []
    real = run.clean_blocks

    def killed(config, tasks, stream):
        for number, block in real(config, tasks, stream):
            if number == 2:
                raise KeyboardInterrupt
            made.append(number)
            yield number, block

    monkeypatch.setattr(run, "clean_blocks", killed)
    with pytest.raises(KeyboardInterrupt):
        list(find_exclusions(sample_rows(), config, work))

    def counted(config, tasks, stream):
        for number, block in real(config, tasks, stream):
            made.append(number)
            yield number, block

    monkeypatch.setattr(run, "clean_blocks", counted)
    assert told(list(find_exclusions(sample_rows(), config, work))) == expected()
    assert made == [0, 1, 2, 3]
    first = (work / run.SUMMARY).read_bytes()

    rows = sample_rows()
    rows[17] = Text("rows.jsonl:17", "Another.", "Text.")  # of block 2
    assert told(list(find_exclusions(rows, config, work))) == expected()
    assert made == [0, 1, 2, 3, 2]
    assert (work / run.SUMMARY).read_bytes() == first

    other = clean_config(tmp_path, tiers=("equal",))
    assert 7 not in told(list(find_exclusions(rows, other, work)))
    assert made == [0, 1, 2, 3, 2, 0, 1, 2, 3]


def test_parts_can_be_switched_off(tmp_path: Path):
    config = clean_config(tmp_path, benchmarks=(), near=None, exact=False)
    assert told(list(find_exclusions(sample_rows(), config, tmp_path / "none"))) == {}
    config = clean_config(tmp_path, benchmarks=(), near=None)
    assert told(list(find_exclusions(sample_rows(), config, tmp_path / "exact"))) == {
        9: expected()[9],
        25: ("duplicate", "exact", "rows.jsonl:5"),
    }


def test_no_rows(tmp_path: Path):
    assert list(find_exclusions([], clean_config(tmp_path), tmp_path / "work")) == []
    write_report(tmp_path / "work", tmp_path / "out")
    assert json.loads((tmp_path / "out/cleaning.json").read_text())["rows"] == 0


def test_the_first_of_a_chain_stays_and_the_next_that_differs_from_it(tmp_path: Path):
    words = [f"word{n}" for n in range(100)]
    chain = []
    for step in range(6):  # each like the one before, none of the last like the first
        chain.append(Text(f"c:{step}", " ".join([*(f"new{n}" for n in range(12 * step)), *words[12 * step :]]), ""))
    answers = list(find_exclusions(chain, CleanConfig(benchmarks=()), tmp_path))
    assert [answer.match if answer else None for answer in answers] == [None, "c:0", None, "c:2", None, "c:4"]


def test_check_tells_benchmarks_and_those_left_out(tmp_path: Path):
    findings = check_clean(clean_config(tmp_path))
    assert [finding.level for finding in findings] == ["ok", "ok", "warning", "ok"]
    assert "humaneval (humaneval.jsonl, version unknown), 2 tasks" in findings[0].message
    assert "not held against humaneval_plus, mbpp_plus" in findings[2].message
    (missing,) = check_clean(CleanConfig(benchmarks=(MbppConfig(path=tmp_path / "nowhere"),)))
    assert missing.level == "error" and "clean.benchmarks, mbpp" in missing.message


def test_the_default_is_all_benchmarks_and_all_tiers():
    config = parse_config({}, CleanConfig, "test")
    assert [one.kind for one in config.benchmarks] == ["humaneval", "humaneval_plus", "mbpp", "mbpp_plus"]
    assert config.tiers == ("equal", "contained", "runs", "example", "tests")
    assert (config.near.run_words, config.near.permutations, config.near.threshold) == (5, 256, 0.7)


def test_a_report_needs_a_finished_cleaning(tmp_path: Path):
    next(find_exclusions(sample_rows(), clean_config(tmp_path), tmp_path / "work"))
    with pytest.raises(CleanError, match="clean the rows to their end before the report"):
        write_report(tmp_path / "work", tmp_path)


@pytest.mark.ray
def test_over_a_cluster_everything_is_the_same(cluster_address: str, tmp_path: Path, small_blocks: None):
    config = clean_config(tmp_path)
    here = list(find_exclusions(sample_rows(), config, tmp_path / "here"))
    there = list(find_exclusions(sample_rows(), config, tmp_path / "there", RayEngine(address=cluster_address)))
    assert here == there and told(there) == expected()
    for name in (run.SUMMARY, run.CONTAMINATED, "signatures.u32"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.ray
def test_a_killed_node_changes_nothing(breakable_cluster, tmp_path: Path, small_blocks: None):
    config = clean_config(tmp_path)

    def rows_until_a_node_is_gone():
        for number, row in enumerate(sample_rows()):
            if number == 24:  # while blocks before are under way
                breakable_cluster.kill_second()
            yield row

    engine = RayEngine(address=breakable_cluster.address)
    assert told(list(find_exclusions(rows_until_a_node_is_gone(), config, tmp_path / "work", engine))) == expected()
