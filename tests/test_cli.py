"""The command line as a user meets it: help, errors without tracebacks, exit codes."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from jaxwiz.cli import main, parse_arguments
from jaxwiz.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


def test_help_names_every_command():
    done = subprocess.run([sys.executable, "-m", "jaxwiz.cli", "--help"], capture_output=True, text=True, check=True)
    for command in (*STAGES, "run", "check", "show", "stages"):
        assert f"    {command}" in done.stdout


def test_stages_lists_what_each_reads_and_writes(capsys: pytest.CaptureFixture[str]):
    assert main(["stages"]) == 0
    out = capsys.readouterr().out
    assert all(stage.reads in out and ", ".join(stage.results) in out for stage in STAGES.values())


def test_an_override_may_stand_behind_an_option(capsys: pytest.CaptureFixture[str]):
    options = parse_arguments(["run", "a.yaml", "b.c=1", "--dry-run", "d.e=2", "f=3"])
    assert (options.dry_run, options.overrides) == (True, ["b.c=1", "d.e=2", "f=3"])
    options = parse_arguments(["train", "a.yaml", "--profile", "b=1", "--allow-change", "seed", "c/d=2"])
    assert (options.profile, options.allow_change, options.overrides) == ("", ["seed"], ["c/d=2", "b=1"])
    for wrong in (["run", "a.yaml", "--dry-run", "d.e=2", "more"], ["stages", "--absent", "a=1"], ["stages", "a=1"]):
        with pytest.raises(SystemExit):
            parse_arguments(wrong)
    assert "unrecognized arguments: d.e=2 more" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "run", "check", "show"])
def test_a_missing_config_is_one_message(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "absent.yaml"]) == 2
    assert capsys.readouterr().err == (
        f"jaxwiz {command}: absent.yaml: cannot read the config (No such file or directory); check the path\n"
    )


def test_an_unknown_key_is_one_message(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "configs/train/quickstart.yaml", "stepz=3"]) == 2
    assert "stepz = 3: unknown key; did you mean 'steps'?" in capsys.readouterr().err


def test_a_missing_input_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["train", "configs/train/quickstart.yaml", f"dataset={tmp_path}/absent", f"out={tmp_path}/out"]
    assert main(arguments) == 2
    assert f"dataset = '{tmp_path}/absent': no such file or folder" in capsys.readouterr().err


def test_an_unwritable_folder_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    arguments = ["convert", "configs/convert/smollm2-135m-instruct.yaml", f"out={tmp_path}/file/out"]
    assert main(arguments) == 2
    assert f"out = '{tmp_path}/file/out': cannot write there" in capsys.readouterr().err


def test_a_full_disk_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "shard-0")

    monkeypatch.setattr("jaxwiz.step.run_step", fill)
    assert main(["convert", "configs/convert/smollm2-135m-instruct.yaml", f"out={tmp_path}/out"]) == 1
    assert "No space left on device: 'shard-0'; mend it" in capsys.readouterr().err


def test_a_config_of_another_stage_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["data", "configs/train/quickstart.yaml"]) == 2
    assert "stage = 'train', but it is run as 'data'" in capsys.readouterr().err


def test_show_prints_what_loads_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["show", "configs/train/quickstart.yaml", "steps=7"]) == 0
    shown = capsys.readouterr().out
    assert "steps: 7" in shown
    (tmp_path / "again.yaml").write_text(shown)
    assert main(["show", str(tmp_path / "again.yaml")]) == 0
    assert capsys.readouterr().out == shown


def test_check_counts_errors_in_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "configs/pipeline/quickstart.yaml", f"out={tmp_path}"]) == 0
    assert "0 error(s)" in capsys.readouterr().out
    assert main(["check", "configs/train/quickstart.yaml", f"dataset={tmp_path}/absent"]) == 2
