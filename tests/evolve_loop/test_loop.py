"""Rounds until the score falls: what runs, what is kept, what is refused, and what the journal alone makes again."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.config import ConfigError
from jaxwiz.evolve import run as evolve_stage
from jaxwiz.evolve_loop.rounds import load_loop
from jaxwiz.evolve_loop.run import decide, run_loop
from jaxwiz.llm.config import ReplayBackend
from jaxwiz.problems.config import HumanEvalConfig, MbppConfig
from tests.clean.made import MBPP, PROMPT
from tests.evolve_loop.conftest import DEVELOPMENT

ROUND = ["evolve", "data", "train", "sample", "score"]
SETS = ("evolved.jsonl", "rejected.jsonl", "statistics.json")


@pytest.mark.parametrize(
    ("scores", "patience", "best", "stop"),
    [
        ([0.1], 1, 0, False),
        ([0.1, 0.2], 1, 1, False),
        ([0.1, 0.2, 0.1], 1, 1, True),
        ([0.2, 0.1], 1, 0, True),
        ([0.2, 0.2], 1, 0, False),
        ([0.2, 0.2, 0.1], 1, 0, True),
        ([0.2, 0.1], 2, 0, False),
        ([0.2, 0.1, 0.0], 2, 0, True),
        ([0.2, 0.1, 0.2, 0.1], 2, 0, False),
        ([0.2, 0.1, 0.3], 2, 2, False),
    ],
)
def test_when_a_loop_stops_and_what_is_best(scores: list[float], patience: int, best: int, stop: bool):
    assert decide(scores, patience) == (best, stop)


def test_it_stops_on_decline_and_keeps_the_best(write_loop, make_steps, tmp_path: Path, capsys):
    steps = make_steps(0.1, 0.4, 0.3, 0.9)
    assert main(["evolve-loop", str(write_loop())]) == 0
    rounds = [(f"round {number}", name) for number in (0, 1, 2) for name in ROUND]
    assert steps.ran == [("", "model"), *rounds], "round 3 would have been better, but nobody may know"
    out = tmp_path / "loop"
    found = json.loads((out / "loop.json").read_text())
    assert (found["best"], found["ended"]) == (1, "decline")
    assert [one["pass_at_1"] for one in found["rounds"]] == [0.1, 0.4, 0.3]
    assert found["development"]["tasks"] == ["Own/0", "Own/1"]
    rows = [(out / f"round-{number}/evolve/evolved.jsonl").read_bytes().count(b"\n") for number in (0, 1, 2)]
    assert [one["rows"] for one in found["rounds"]] == rows and rows[0] == 7 < rows[1] < rows[2]
    assert (out / "best").is_symlink() and (out / "best").resolve() == (out / "round-1").resolve()
    summary = (out / "summary.txt").read_text().splitlines()
    assert summary[3].endswith("best") and summary[3].split()[:3] == ["1", str(rows[1]), "40.0%"]
    assert summary[-2:] == ["ended: 1 round(s) in a row below round 1", f"best: {out / 'best'}"]
    assert capsys.readouterr().out == (out / "summary.txt").read_text()


def test_a_set_of_each_round_is_made_again_from_the_journal_alone(write_loop, make_steps, tmp_path: Path, monkeypatch):
    steps = make_steps(0.1, 0.2, 0.3, 0.4, 0.5)
    loop = load_loop(write_loop(), [])
    assert run_loop(loop) == 0
    keys = steps.generator.keys
    assert len(set(keys)) == len(keys) > 0, "no round asks what an earlier one has asked"
    monkeypatch.undo()
    recording = tmp_path / "recording.jsonl"
    recording.write_bytes((tmp_path / "loop/journal.jsonl").read_bytes())
    for number, (_, _, config), *_ in ((number, *steps) for number, steps in loop.rounds.items()):
        replayed = dataclasses.replace(
            config, out=tmp_path / f"again-{number}", journal="", generator=ReplayBackend(path=recording)
        )
        evolve_stage.run(replayed)
        for name in SETS:
            assert (replayed.out / name).read_bytes() == (config.out / name).read_bytes(), f"round {number}, {name}"


def test_a_failed_step_ends_the_loop_with_its_code_and_the_next_run_goes_on(write_loop, make_steps, tmp_path: Path):
    path = write_loop(patience=4)
    steps = make_steps(0.5, 0.4, 0.3, 0.2, 0.1)
    steps.fails = {("round 2", "train"): 3}
    assert main(["evolve-loop", str(path)]) == 3
    found = json.loads((tmp_path / "loop/loop.json").read_text())
    assert len(found["rounds"]) == 2 and found["ended"] == ""
    asked = len(steps.generator.keys)
    steps.fails, steps.ran = {}, []
    assert main(["evolve-loop", str(path)]) == 0
    assert len(steps.ran) == 1 + 5 * len(ROUND), "finished ones are skipped by the steps themselves"
    assert len(set(steps.generator.keys)) == len(steps.generator.keys) > asked
    found = json.loads((tmp_path / "loop/loop.json").read_text())
    assert (len(found["rounds"]), found["best"], found["ended"]) == (5, 0, "decline")


def test_without_a_baseline_it_begins_with_round_1(write_loop, make_steps, tmp_path: Path):
    make_steps(0.9, 0.2, 0.3)
    assert main(["evolve-loop", str(write_loop(baseline=False, rounds=2)), "train.steps=5"]) == 0
    found = json.loads((tmp_path / "loop/loop.json").read_text())
    assert [one["round"] for one in found["rounds"]] == [1, 2] and found["ended"] == "rounds"
    assert not (tmp_path / "loop/round-0").exists()


def test_the_loop_sets_what_is_its_own(write_loop, tmp_path: Path):
    loop = load_loop(write_loop(), ["train.steps=5", "rounds=2"])
    assert list(loop.rounds) == [0, 1, 2]
    unseen = (
        HumanEvalConfig(path=tmp_path / "humaneval.jsonl"),
        MbppConfig(path=tmp_path / "mbpp.jsonl"),
        HumanEvalConfig(path=tmp_path / "development.jsonl"),
    )
    evolve, data, train, sample, score = (config for _, _, config in loop.rounds[2])
    out = tmp_path / "loop"
    assert (evolve.rounds, evolve.journal, evolve.out) == (2, str(out / "journal.jsonl"), out / "round-2/evolve")
    assert evolve.eliminate.decontaminate == data.clean.benchmarks == unseen
    assert data.sources == (out / "round-2/evolve/evolved.jsonl",) and data.tokenizer == out / "model/model"
    assert (train.steps, train.checkpoint) == (5, out / "model/model")
    assert sample.benchmark == score.benchmark == unseen[-1]


def test_parts_of_one_benchmark_are_both_kept_out_by_taking_the_whole(write_loop):
    parts = [{"kind": "humaneval", "ids": [f"HumanEval/{number}"]} for number in (3, 70)]
    loop = load_loop(write_loop(development=parts[0], reported=[parts[1]]), [])
    assert loop.rounds[0][0][2].eliminate.decontaminate == (HumanEvalConfig(),)


@pytest.mark.parametrize(
    ("prompt", "tier"),
    [
        (PROMPT, "equal"),
        (PROMPT.replace("def drop_pebbles", "# Do this:\ndef drop_pebbles"), "contained"),
        (f'def f(oil):\n    """{MBPP[0]["text"].replace("tell", "say")}"""\n', "runs"),
    ],
)
def test_a_development_set_that_overlaps_a_reported_benchmark_is_refused(
    prompt: str, tier: str, write_loop, make_steps, tmp_path: Path, capsys: pytest.CaptureFixture
):
    steps = make_steps()
    path = write_loop()
    overlapping = {**DEVELOPMENT[0], "task_id": "Own/2", "prompt": prompt}
    with open(tmp_path / "development.jsonl", "a") as file:
        file.write(json.dumps(overlapping) + "\n")
    for command in (["evolve-loop", str(path)], ["evolve-loop", str(path), "--check"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "development: 1 of its 3 tasks are in a reported benchmark: Own/2 is " in said
        assert f"by {tier}" in said and "development.ids" in said
    assert not steps.ran and not (tmp_path / "loop").exists()
    assert main(["evolve-loop", str(path), "development.ids=[Own/0, Own/1]", "--check"]) == 0


def test_a_reported_benchmark_cannot_be_the_development_set(write_loop, tmp_path: Path):
    for development in ({"kind": "humaneval"}, {"kind": "humaneval", "limit": 40}):
        loop = load_loop(write_loop(development=development, reported=[{"kind": "humaneval"}]), [])
        with pytest.raises(ConfigError, match=r"of its (164|40) tasks are in a reported benchmark: HumanEval/0 is"):
            run_loop(loop)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reported": []}, "reported"),
        ({"round": {"evolve": {"stage": "evolve"}}}, "round has 0 steps of the stage 'evaluate' (none)"),
        ({"once": {"train": {"stage": "convert"}}}, "once and round both have a step 'train'; rename one"),
        ({"once": {"best": {"stage": "convert"}}}, "once.best: the loop keeps the best round under this name"),
        ({"patience": 0}, "patience"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_faulty_loop_is_named(changes: dict, message: str, write_loop, capsys: pytest.CaptureFixture):
    assert main(["evolve-loop", str(write_loop(**changes))]) == 2
    assert message in capsys.readouterr().err


def test_a_score_must_be_of_one_system_with_k_1(write_loop):
    with pytest.raises(ConfigError, match=r"round.score: must score one system with k = 1"):
        load_loop(write_loop(), ["score.k=[10]"])


def test_faults_of_all_steps_are_said_once_and_missing_inputs_before_anything_runs(write_loop, make_steps, tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)'data'.*colour.*'train'.*hue") as error:
        load_loop(write_loop(), ["data.colour=red", "train.hue=1"])
    assert str(error.value).count("colour") == str(error.value).count("'data'")
    steps = make_steps()
    path = write_loop()
    (tmp_path / "seeds.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"evolve.seeds = .*seeds.jsonl': no such file"):
        run_loop(load_loop(path, []))
    assert not steps.ran


def test_check_says_what_would_run(write_loop, capsys: pytest.CaptureFixture):
    assert main(["evolve-loop", str(write_loop()), "rounds=1", "--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "development set: humaneval, 2 tasks, none of them of humaneval, mbpp",
        "once: model (convert)",
        *(
            f"round {number}: evolve (evolve) -> data (data) -> train (train) -> sample (sample) -> score (evaluate)"
            for number in (0, 1)
        ),
        "stops after 1 round(s) in a row below the best",
    ]


def test_the_shipped_loop_is_valid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    loop = load_loop(Path("configs/loop/wizardcoder-python-7b.yaml"), [])
    assert [name for name, _, _ in loop.rounds[4]] == ROUND
    assert loop.rounds[4][3][2].benchmark.split == "validation"
