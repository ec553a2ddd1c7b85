"""What a user can get wrong in a config, and the one clear message that each mistake gives."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from jaxwiz.config import (
    ConfigError,
    input_paths,
    load_config,
    missing_inputs,
    parse_config,
    read_config_file,
    section,
    to_yaml,
)
from jaxwiz.config.loader import merge


@section
class LocalBackend:
    kind: Literal["local"] = "local"
    checkpoint: Path = Path("checkpoint")


@section
class RemoteBackend:
    kind: Literal["remote"] = "remote"
    url: str


@section
class OptimizerSection:
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    warmup_steps: int = 30


@section
class ExampleConfig:
    out: Path
    optimizer: OptimizerSection = OptimizerSection()
    backend: Annotated[LocalBackend | RemoteBackend, Field(discriminator="kind")] = LocalBackend()
    sources: tuple[Path, ...] = ()


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def fault_of(data: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, ExampleConfig, "x.yaml")
    return str(caught.value)


def test_scientific_notation_is_a_number(tmp_path: Path):
    path = write(tmp_path, "out: run\noptimizer: {learning_rate: 3e-5}\n")
    assert load_config(path, ExampleConfig).optimizer.learning_rate == 3e-5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"out": "run", "optimiser": {}}, "optimiser = {}: unknown key; did you mean 'optimizer'?"),
        ({"out": "run", "optimizer": {"lr": 1.0}}, "optimizer.lr = 1.0: unknown key; known keys: learning_rate"),
        ({"out": "run", "optimizer": {"warmup_steps": "3"}}, "optimizer.warmup_steps = '3': input should be a valid"),
        ({"out": "run", "optimizer": {"warmup_steps": True}}, "optimizer.warmup_steps = True: input should be a valid"),
        (
            {"out": "run", "optimizer": {"learning_rate": -1.0}},
            "optimizer.learning_rate = -1.0: input should be greater",
        ),
        ({"out": 3}, "out = 3: input should be a valid string; quote it"),
        (
            {"out": "run", "backend": {"kind": "remote", "url": 9.9}},
            "backend.url = 9.9: input should be a valid string; quote",
        ),
        ({}, "out: required, but not given; add it"),
        ({"out": "run", "backend": {"kind": "distant"}}, "backend.kind = 'distant': must be one of 'local', 'remote'"),
        ({"out": "run", "backend": {}}, "backend: needs a 'kind', one of 'local', 'remote'"),
        (
            {"out": "run", "backend": {"kind": "remote", "urls": ""}},
            "backend.urls = '': unknown key; did you mean 'url'?",
        ),
    ],
)
def test_a_fault_names_key_value_and_remedy(data: dict, message: str):
    assert message in fault_of(data)


def test_all_faults_are_reported_at_once():
    text = fault_of({"optimizer": {"warmup_steps": "3"}, "sauces": []})
    assert text.startswith("x.yaml: 3 fault(s)")


def test_an_anchor_may_be_merged_and_what_stands_beside_it_wins(tmp_path: Path):
    path = write(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_config_file(path)["b"] == {"x": 1, "y": 3}
    path = write(tmp_path, "a: &a {x: 1}\nb: {<<: *a, y: 3, y: 4}\n")
    with pytest.raises(ConfigError, match="key 'y' is given twice"):
        read_config_file(path)


def test_a_duplicate_key_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config.yaml:2: key 'out' is given twice"):
        read_config_file(write(tmp_path, "out: a\nout: b\n"))


@pytest.mark.parametrize(
    ("text", "message"), [("- 1\n", "must be a mapping"), ("a: [", "not valid YAML"), ("extends: 3\n", "extends = 3")]
)
def test_a_malformed_file_is_an_error(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_config_file(write(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot read the config \(No such file or directory\)"):
        read_config_file(tmp_path / "absent.yaml")


def test_extends_merges_sections_and_refuses_a_cycle(tmp_path: Path):
    write(tmp_path, "out: base\noptimizer: {warmup_steps: 5, learning_rate: 1e-3}\n", "base.yaml")
    child = write(tmp_path, "extends: base.yaml\noptimizer: {warmup_steps: 7}\n")
    assert read_config_file(child) == {"out": "base", "optimizer": {"warmup_steps": 7, "learning_rate": 1e-3}}
    write(tmp_path, "extends: config.yaml\n", "base.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        read_config_file(child)


def test_overrides_reach_sections_and_list_items(tmp_path: Path):
    path = write(tmp_path, "out: run\nsources: [a, b]\n")
    config = load_config(path, ExampleConfig, ["optimizer.learning_rate=1e-4", "sources.1=c"])
    assert config.optimizer.learning_rate == 1e-4
    assert config.sources == (Path("a"), Path("c"))


@pytest.mark.parametrize("override", ["out", "=3", "sources.9=c", "out.deeper=1", "out=[1"])
def test_a_malformed_override_is_an_error(tmp_path: Path, override: str):
    with pytest.raises(ConfigError, match="override"):
        read_config_file(write(tmp_path, "out: run\nsources: [a, b]\n"), [override])


def test_another_kind_replaces_a_section_instead_of_merging_into_it():
    base = {"backend": {"kind": "local", "checkpoint": "c"}}
    assert merge(base, {"backend": {"kind": "remote", "url": "u"}}) == {"backend": {"kind": "remote", "url": "u"}}
    assert merge(base, {"backend": {"checkpoint": "d"}}) == {"backend": {"kind": "local", "checkpoint": "d"}}


def test_a_dumped_config_loads_to_an_equal_one(tmp_path: Path):
    config = ExampleConfig(out=Path("run"), backend=RemoteBackend(url="http://localhost"), sources=(Path("a"),))
    assert load_config(write(tmp_path, to_yaml(config)), ExampleConfig) == config


def test_every_path_but_out_is_an_input(tmp_path: Path):
    config = ExampleConfig(out=tmp_path / "run", sources=(tmp_path / "here", tmp_path / "absent"))
    (tmp_path / "here").touch()
    assert [key for key, _ in input_paths(config)] == ["backend.checkpoint", "sources.0", "sources.1"]
    faults = [finding.message for finding in missing_inputs(config)]
    assert len(faults) == 2
    assert "sources.1" in faults[1]
