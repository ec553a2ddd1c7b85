"""A step skips what is finished, resumes what was interrupted, and never deletes other work."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jaxwiz.config import ConfigError, section
from jaxwiz.stages import Stage
from jaxwiz.step import run_step, step_state


@section
class CopyConfig:
    out: Path
    source: Path
    times: int = 1
    template: str = "alpaca"
    engine: str = "local"


COPY = Stage(
    "copy", "copies a file", "a file", ("copy.txt",), "fake_copy:CopyConfig", "fake_copy:run", "fake_copy:check"
)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[CopyConfig]:
    """Installs the stage; returns the configs it was run with."""
    calls: list[CopyConfig] = []

    def run(config: CopyConfig) -> Path:
        calls.append(config)
        if config.times < 0:
            raise KeyboardInterrupt
        (config.out / "copy.txt").write_text(config.source.read_text() * config.times)
        return config.out

    module = ModuleType("fake_copy")
    module.CopyConfig, module.run, module.check = CopyConfig, run, lambda config: []
    monkeypatch.setitem(sys.modules, "fake_copy", module)
    return calls


@pytest.fixture
def config(tmp_path: Path) -> CopyConfig:
    (tmp_path / "source.txt").write_text("text")
    return CopyConfig(out=tmp_path / "out", source=tmp_path / "source.txt")


def changed(config: CopyConfig, **changes: object) -> CopyConfig:
    return CopyConfig(**{"out": config.out, "source": config.source, "times": config.times, **changes})


def test_another_engine_does_not_make_it_other_work(config: CopyConfig, runs: list):
    run_step(COPY, config)
    assert run_step(COPY, changed(config, engine="ray")) == "skipped"


def test_a_finished_step_is_skipped(config: CopyConfig, runs: list):
    assert run_step(COPY, config) == "finished"
    assert run_step(COPY, config) == "skipped"
    assert len(runs) == 1
    assert (config.out / "config.yaml").read_text().startswith("stage: copy\nout: ")


def test_an_input_that_moved_is_still_the_same_input(config: CopyConfig, runs: list, tmp_path: Path):
    run_step(COPY, config)
    moved = config.source.rename(tmp_path / "moved.txt")
    assert run_step(COPY, changed(config, source=moved)) == "skipped"


def test_damaged_results_are_made_again_in_place(config: CopyConfig, runs: list):
    run_step(COPY, config)
    (config.out / "copy.txt").write_text("evil")
    assert step_state(COPY, config).status == "interrupted"
    assert run_step(COPY, config) == "finished"
    assert (config.out / "copy.txt").read_text() == "text"


@pytest.mark.parametrize("change", ["config", "input"])
def test_other_work_is_moved_aside_not_deleted(config: CopyConfig, runs: list, change: str, tmp_path: Path):
    run_step(COPY, config)
    (config.out / "precious").touch()
    if change == "input":
        config.source.write_text("other")
    else:
        config = changed(config, times=2)
    assert run_step(COPY, config) == "finished"
    assert (tmp_path / "out.old-1" / "precious").exists()
    assert not (config.out / "precious").exists()


def test_a_template_file_counts_by_its_content(config: CopyConfig, runs: list, tmp_path: Path):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    config = changed(config, template=str(template))
    run_step(COPY, config)
    moved = template.rename(tmp_path / "moved.jinja")
    assert run_step(COPY, changed(config, template=str(moved))) == "skipped"
    moved.write_text("{{ messages | tojson }}")
    assert run_step(COPY, changed(config, template=str(moved))) == "finished"
    assert len(runs) == 2
    with pytest.raises(ConfigError, match=r"template = '.*absent.jinja': no such file"):
        run_step(COPY, changed(config, template=str(tmp_path / "absent.jinja")))


def test_a_folder_that_no_step_made_is_moved_aside_too(config: CopyConfig, runs: list, tmp_path: Path):
    config.out.mkdir()
    (config.out / "thesis.tex").touch()
    run_step(COPY, config)
    assert (tmp_path / "out.old-1" / "thesis.tex").exists()


def test_an_interrupted_step_finds_its_working_state_again(config: CopyConfig, runs: list):
    broken = changed(config, times=-1)
    with pytest.raises(KeyboardInterrupt):
        run_step(COPY, broken)
    assert json.loads((config.out / "step.json").read_text())["status"] == "running"
    (config.out / "journal").touch()
    with pytest.raises(KeyboardInterrupt):
        run_step(COPY, broken)
    assert (config.out / "journal").exists()


def test_a_missing_input_is_named_before_anything_is_written(config: CopyConfig, runs: list, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"source = '.*absent': no such file"):
        run_step(COPY, changed(config, source=tmp_path / "absent"))
    assert not config.out.exists()


def test_the_result_of_a_step_is_an_input_by_its_contents(config: CopyConfig, runs: list, tmp_path: Path):
    run_step(COPY, config)
    second = CopyConfig(out=tmp_path / "second", source=config.out / "copy.txt")
    run_step(COPY, second)
    (config.out / "step.json").unlink()  # recomputed: same contents, so the second step still holds
    run_step(COPY, config)
    assert run_step(COPY, second) == "skipped"


def test_two_processes_do_not_work_in_one_folder(config: CopyConfig, runs: list):
    from jaxwiz.step import _exclusive

    with _exclusive(config.out), pytest.raises(ConfigError, match="another jaxwiz process"):
        run_step(COPY, config)
