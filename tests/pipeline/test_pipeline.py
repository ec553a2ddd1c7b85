"""A pipeline's config: what is wrong with it is said before anything runs."""

from pathlib import Path

import pytest
import yaml

from jaxwiz.config import ConfigError
from jaxwiz.pipeline import check_pipeline, load_pipeline, run_pipeline

CONVERT = {
    "stage": "convert",
    "set": {"source": {"kind": "hf", "path": "absent/model"}},
}
DATA = {
    "stage": "data",
    "set": {"sources": ["absent/rows.json"], "tokenizer": "${model}/model"},
}


def write(folder: Path, **steps: dict) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / "run"), "steps": steps}, sort_keys=False))
    return path


def test_a_step_finds_the_folder_of_an_earlier_one(tmp_path: Path):
    _, steps = load_pipeline(write(tmp_path, model=CONVERT, data=DATA), ["data.sequence_length=64"])
    _, _, data = steps[1]
    assert data.tokenizer == tmp_path / "run/model/model"
    assert data.out == tmp_path / "run/data"
    assert data.sequence_length == 64


def test_a_step_may_use_a_file_and_change_it(tmp_path: Path):
    (tmp_path / "data.yaml").write_text("stage: data\nout: x\nsources: [a]\ntokenizer: t\nsequence_length: 64\n")
    step = {"stage": "data", "use": "data.yaml", "set": {"tokenizer": "u"}}
    (_, _, data), *_ = load_pipeline(write(tmp_path, data=step), [])[1]
    assert (data.sequence_length, data.tokenizer, data.out) == (64, Path("u"), tmp_path / "run/data")


def test_a_recipe_may_change_and_add_steps_of_another(tmp_path: Path):
    write(tmp_path, model=CONVERT, data=DATA)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "extends: pipeline.yaml\nsteps:\n  data: {set: {sequence_length: 64}}\n"
        "  again: {stage: data, set: {sources: [a], tokenizer: '${model}/model'}}\n"
    )
    _, steps = load_pipeline(recipe, ["again.template=alpaca"])
    assert [name for name, _, _ in steps] == ["model", "data", "again"]
    assert [config.sequence_length for name, _, config in steps if name == "data"] == [64]
    assert steps[2][2].template == "alpaca"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"data": DATA}, r"\$\{model\} names no earlier step; earlier steps: none"),
        ({"data": DATA, "model": CONVERT}, r"\$\{model\} names no earlier step; earlier steps: none"),
        ({"model": {**CONVERT, "stage": "bake"}}, "stage = 'bake': must be one of evolve, data"),
        ({"Model!": CONVERT}, r"steps.Model!"),
        ({}, "steps"),
    ],
)
def test_a_faulty_pipeline_is_named(tmp_path: Path, steps: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        load_pipeline(write(tmp_path, **steps), [])


@pytest.mark.parametrize("text", ["out: run\n", "out: run\nsteps:\n", "out: run\nsteps: 3\n"])
def test_a_file_without_steps_is_no_pipeline(tmp_path: Path, text: str):
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(ConfigError, match="steps"):
        load_pipeline(tmp_path / "pipeline.yaml", [])


def test_the_faults_of_all_steps_are_reported_together(tmp_path: Path):
    steps = {"model": CONVERT, "data": DATA}
    broken = {name: {**step, "set": {**step["set"], "colour": "red"}} for name, step in steps.items()}
    with pytest.raises(ConfigError, match=r"(?s)step 'model'.*colour.*step 'data'.*colour"):
        load_pipeline(write(tmp_path, **broken), [])


def test_inputs_that_no_step_makes_are_missed_before_anything_runs(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"(?s)model.source.path = 'absent/model'.*data.sources.0 = 'absent/rows"):
        run_pipeline(write(tmp_path, model=CONVERT, data=DATA), [])
    assert not (tmp_path / "run").exists()


def test_check_says_what_waits_for_an_earlier_step(tmp_path: Path):
    (tmp_path / "rows.json").write_text("[]")
    data = {**DATA, "set": {**DATA["set"], "sources": [str(tmp_path / "rows.json")]}}
    findings = check_pipeline(write(tmp_path, model=CONVERT, data=data), [])
    assert [finding.level for finding in findings] == ["error", "ok"]
    assert "waits for" in findings[1].message
