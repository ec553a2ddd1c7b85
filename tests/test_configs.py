"""Every file under configs/ loads, and every section keeps to its rules."""

import dataclasses
from pathlib import Path

import pytest

from jaxwiz.cli import main
from jaxwiz.config import read_config_file
from jaxwiz.config.loader import _sections
from jaxwiz.pipeline import load_pipeline, show_file
from jaxwiz.stages import STAGES, load_symbol

ROOT = Path(__file__).resolve().parents[1]
NO_STAGES = ("model", "launch", "loop")  # shapes, launch specs, loops: tests/plan, tests/launch, tests/evolve_loop
FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name not in NO_STAGES)
MAX_FIELDS = 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_config_loads_and_shows(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert show_file(path, [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_config_lies_in_the_folder_of_its_stage(path: Path):
    data = read_config_file(path)
    folder = path.relative_to(ROOT / "configs").parts[0]
    assert folder == ("pipeline" if isinstance(data.get("steps"), dict) else data["stage"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs/pipeline").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_passes_its_check_from_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "jaxwiz").symlink_to(ROOT / "jaxwiz")  # the seeds; no runs of earlier days
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert main(["check", str(path)]) == 0
    assert "\n0 error(s) in" in capsys.readouterr().out


def test_there_is_a_config_for_every_stage():
    assert {path.relative_to(ROOT / "configs").parts[0] for path in FILES} >= {*STAGES, "pipeline"}


def all_sections(root: type) -> list[type]:
    found = [root]
    for section in found:
        for hint in section.__annotations__.values():
            found += [inner for inner in _sections(hint) if inner not in found]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_section_is_small_and_documents_every_field(stage: str):
    for section in all_sections(load_symbol(STAGES[stage].config)):
        fields = [field.name for field in dataclasses.fields(section)]
        assert len(fields) <= MAX_FIELDS, f"{section.__name__} has {len(fields)} fields: split it"
        for name in fields:
            assert name == "kind" or f"{name}:" in (section.__doc__ or ""), (
                f"{section.__name__}.{name} is not documented"
            )


def test_the_quickstart_uses_every_stage():
    _, steps = load_pipeline(ROOT / "configs/pipeline/quickstart.yaml", [])
    assert {stage.name for _, stage, _ in steps} == set(STAGES)
