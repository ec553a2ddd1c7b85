"""A pipeline's config: what is wrong with it is said before anything runs."""

from pathlib import Path

import pytest
import yaml

from jaxwiz.config import ConfigError
from jaxwiz.pipeline import check_pipeline, load_pipeline, run_pipeline

CONVERT = {
    "name": "model",
    "stage": "convert",
    "set": {"source": {"kind": "hf", "path": "absent/model"}},
}
DATA = {
    "name": "data",
    "stage": "data",
    "set": {"sources": ["absent/rows.json"], "tokenizer": "${model}/model"},
}


def write(folder: Path, *steps: dict) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / "run"), "steps": list(steps)}))
    return path


def test_a_step_finds_the_folder_of_an_earlier_one(tmp_path: Path):
    _, steps = load_pipeline(write(tmp_path, CONVERT, DATA), ["data.sequence_length=64"])
    _, _, data = steps[1]
    assert data.tokenizer == tmp_path / "run/model/model"
    assert data.out == tmp_path / "run/data"
    assert data.sequence_length == 64


def test_a_step_may_use_a_file_and_change_it(tmp_path: Path):
    (tmp_path / "data.yaml").write_text("stage: data\nout: x\nsources: [a]\ntokenizer: t\nsequence_length: 64\n")
    step = {"name": "data", "stage": "data", "use": "data.yaml", "set": {"tokenizer": "u"}}
    (_, _, data), *_ = load_pipeline(write(tmp_path, step), [])[1]
    assert (data.sequence_length, data.tokenizer, data.out) == (64, Path("u"), tmp_path / "run/data")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([DATA], r"\$\{model\} names no earlier step; earlier steps: none"),
        ([CONVERT, CONVERT], "two steps are named 'model'"),
        ([{**CONVERT, "stage": "bake"}], "stage = 'bake': must be one of evolve, data"),
        ([{**CONVERT, "name": "Model!"}], r"steps.0.name = 'Model!'"),
        ([], "steps"),
    ],
)
def test_a_faulty_pipeline_is_named(tmp_path: Path, steps: list, message: str):
    with pytest.raises(ConfigError, match=message):
        load_pipeline(write(tmp_path, *steps), [])


@pytest.mark.parametrize("text", ["out: run\n", "out: run\nsteps:\n", "out: run\nsteps: 3\n"])
def test_a_file_without_steps_is_no_pipeline(tmp_path: Path, text: str):
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(ConfigError, match="steps"):
        load_pipeline(tmp_path / "pipeline.yaml", [])


def test_the_faults_of_all_steps_are_reported_together(tmp_path: Path):
    broken = [{**step, "set": {**step["set"], "colour": "red"}} for step in (CONVERT, DATA)]
    with pytest.raises(ConfigError, match=r"(?s)step 'model'.*colour.*step 'data'.*colour"):
        load_pipeline(write(tmp_path, *broken), [])


def test_inputs_that_no_step_makes_are_missed_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"(?s)model.source.path = 'absent/model'.*data.sources.0 = 'absent/rows"):
        run_pipeline(write(tmp_path, CONVERT, DATA), [])
    assert not (tmp_path / "run").exists()


def test_check_says_what_waits_for_an_earlier_step(tmp_path: Path):
    (tmp_path / "rows.json").write_text("[]")
    data = {**DATA, "set": {**DATA["set"], "sources": [str(tmp_path / "rows.json")]}}
    findings = check_pipeline(write(tmp_path, CONVERT, data), [])
    assert [finding.level for finding in findings] == ["error", "ok"]
    assert "waits for" in findings[1].message
