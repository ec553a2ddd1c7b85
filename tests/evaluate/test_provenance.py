"""Settings, model and code are named where their record is sound; else the report says why they are not known."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import jaxwiz
from jaxwiz import files
from jaxwiz.evaluate import provenance
from jaxwiz.evaluate.provenance import code_commit, model_identity, sampling_settings

CONFIG = """\
stage: sample
out: {out}
checkpoint: {checkpoint}
benchmark:
  kind: humaneval
template: wizardcoder
prompt_style: wizardcoder
samples_per_task: 20
sampling:
  temperature: 0.2
  top_p: 0.95
"""


@pytest.fixture
def completions(tmp_path: Path) -> Path:
    """A file of completions as the sample stage leaves it, and the checkpoint that wrote it."""
    model = tmp_path / "train" / "model"
    (model / "params").mkdir(parents=True)
    (model / "params" / "d").write_bytes(b"weights")
    (model / "params-index").write_bytes(b"index")  # sorts before params/ by name, after it by path
    (model / "model.json").write_text(json.dumps({"provenance": {"source": "somewhere", "steps": 3}}))
    record(tmp_path / "train")
    path = tmp_path / "sample" / "completions.jsonl"
    path.parent.mkdir()
    path.write_text("{}\n")
    (path.parent / "config.yaml").write_text(CONFIG.format(out=path.parent, checkpoint=model))
    record(path.parent)
    return path


def record(folder: Path, status: str = "finished") -> None:
    results: dict[str, Any] = {
        path.relative_to(folder).as_posix(): {"sha256": files.sha256_of_file(path), "size": path.stat().st_size}
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("config.yaml", "step.json")
    }
    (folder / "step.json").write_text(json.dumps({"status": status, "results": results}))


def test_settings_beside_the_completions(completions: Path) -> None:
    assert sampling_settings(completions) == {
        "template": "wizardcoder",
        "prompt_style": "wizardcoder",
        "samples_per_task": 20,
        "temperature": 0.2,
        "top_p": 0.95,
    }


def test_model_is_named_by_hash_and_provenance(completions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = completions.parents[1] / "train" / "model"
    expected = {
        "checkpoint": str(model),
        "sha256": files.sha256_of_path(model),
        "provenance": {"source": "somewhere", "steps": 3},
    }
    assert model_identity(completions) == expected
    with monkeypatch.context() as patch:  # the record spares reading gigabytes again
        patch.setattr(files, "sha256_of_path", lambda path: pytest.fail("read the weights again"))
        assert model_identity(completions) == expected
    (model.parent / "step.json").unlink()
    assert model_identity(completions) == expected
    monkeypatch.setattr(provenance, "MOST_BYTES_TO_HASH", 3)
    assert "too much to read again" in model_identity(completions)["sha256"]["unknown"]


def test_what_cannot_be_told_says_why(completions: Path) -> None:
    folder = completions.parent

    def why() -> str:
        assert sampling_settings(completions) == model_identity(completions)
        return sampling_settings(completions)["unknown"]

    completions.write_text("other\n")
    assert "its hash differs from step.json" in why()
    (folder / "config.yaml").write_text("stage: train\n")
    assert why() == "config.yaml beside completions.jsonl is not the sample stage's"
    (folder / "config.yaml").write_text("stage: [\n")
    assert why() == "config.yaml beside completions.jsonl cannot be read"
    (folder / "config.yaml").unlink()
    assert why() == "no config.yaml beside completions.jsonl; it was not written by `jaxwiz sample`"


def test_another_model_at_the_same_place_is_not_taken_for_the_one_that_answered(completions: Path) -> None:
    header = completions.parents[1] / "train" / "model" / "model.json"
    later = completions.stat().st_mtime_ns + 10**9
    os.utime(header, ns=(later, later))
    assert "written after the completions" in model_identity(completions)["unknown"]
    header.unlink()
    assert "no checkpoint to be read" in model_identity(completions)["unknown"]


def test_code_is_named_by_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "jaxwiz"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(jaxwiz, "__file__", str(package / "__init__.py"))
    assert "not from a git checkout" in code_commit()["unknown"]  # type: ignore[index]
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    commit = code_commit()
    assert isinstance(commit, str) and len(commit) == 40
    (package / "__init__.py").write_text("changed = True\n")
    assert code_commit() == f"{commit}+changes"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git gave no answer" in code_commit()["unknown"]  # type: ignore[index]
