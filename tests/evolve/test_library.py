"""The library, as a notebook uses it."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxwiz.evolve
from jaxwiz.config import read_config_file
from jaxwiz.evolve import library
from jaxwiz.records import Seed
from tests.evolve.fakes import FakeGenerator

CONFIGS = Path(__file__).parents[2] / "configs/evolve"


def test_the_docstrings_example_runs():
    outcome = doctest.testmod(library)
    assert outcome.attempted >= 8
    assert outcome.failed == 0


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    text = (CONFIGS.parents[1] / "docs/evolving.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr("jaxwiz.llm.backends.make_generator", lambda *_: FakeGenerator())
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert "code/" in capsys.readouterr().out
    assert (tmp_path / "runs/journal.jsonl").exists()


def test_every_name_that_the_package_offers_is_there():
    for name in jaxwiz.evolve.__all__:
        assert getattr(jaxwiz.evolve, name) is not None
    assert not hasattr(jaxwiz.evolve, "nothing")


def test_importing_the_package_imports_nothing_else():
    code = "import sys, jaxwiz.evolve; print([name for name in sys.modules if name.startswith('jaxwiz.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['jaxwiz.evolve']"


def test_the_recipes_are_those_of_the_shipped_configs():
    assert read_config_file(CONFIGS / "wizardlm.yaml")["operations"] == library.WIZARDLM
    assert read_config_file(CONFIGS / "wizardcoder.yaml")["operations"] == library.WIZARDCODER


def test_called_again_it_asks_nothing_and_returns_the_same(tmp_path: Path):
    seeds = ["Sort a list.", Seed(instruction="Add numbers.", input="1, 2", output="3", id="add")]
    first, second = FakeGenerator(), FakeGenerator()
    made = library.evolve(seeds, first, tmp_path / "journal.jsonl", rounds=3, seed=2)
    again = library.evolve(seeds, second, tmp_path / "journal.jsonl", rounds=3, seed=2)
    assert made == again
    assert first.requests and not second.requests
    assert {task.root for task in (*made.evolved, *made.rejected, *made.seeds)} == {"seed-00001", "add"}


def test_the_recipes_have_the_rounds_and_the_quota_of_the_papers():
    recipes = {name: read_config_file(CONFIGS / f"{name}.yaml") for name in ("wizardlm", "wizardcoder")}
    assert {name: recipe["rounds"] for name, recipe in recipes.items()} == {"wizardlm": 4, "wizardcoder": 3}
    assert recipes["wizardcoder"]["quotas"] == {"code/complexity": 0.1}
    assert recipes["wizardlm"]["eliminate"] == {"detectors": []}
    assert len(recipes["wizardlm"]["operations"]) == 6 and len(recipes["wizardcoder"]["operations"]) == 5
