"""The launch spec: faults are named with their remedy, and what follows from it is right."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from jaxwiz.cli import main
from jaxwiz.config import ConfigError, parse_config
from jaxwiz.launch.config import LaunchConfig
from jaxwiz.launch.facts import SpecError, checked_for, command_of, hosts_of, ray_scaling
from jaxwiz.launch.render import filled, shell_variables
from tests.test_configs import MAX_FIELDS, all_sections

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "configs" / "launch").glob("*.yaml"))
TPU = {"kind": "tpu", "topology": "v5e:16x16", "slices": 2}


def spec(**changed: Any) -> LaunchConfig:
    plain = {"name": "job", "command": ["train", "c.yaml"], "accelerator": {"kind": "cpu"}} | changed
    return parse_config(plain, LaunchConfig, "spec")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_a_shipped_spec_is_sound_and_starts_a_config_that_exists(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", str(path)]) == 0
    (command,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("COMMAND=")]
    assert (ROOT / command.split()[1].rstrip(")")).exists()


def test_sections_are_small_and_documented() -> None:
    for section in all_sections(LaunchConfig):
        names = list(section.__annotations__)
        assert len(names) <= MAX_FIELDS
        assert all(name == "kind" or f"{name}:" in (section.__doc__ or "") for name in names)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "My_Job"}, "name = 'My_Job': string should match pattern"),
        ({"command": ["fly"]}, "must start with one of evolve, data, train"),
        ({"accelerator": {"kind": "tpu", "topology": "v5p:4x4"}}, "v5p's shape has 3 sizes"),
        ({"accelerator": {"kind": "tpu", "topology": "v9:4x4"}}, "must be GENERATION:SHAPE"),
        ({"accelerator": {"kind": "tpu", "topology": "v5e:3x3"}}, "9 chips are no whole number of hosts with 4"),
        ({"accelerator": {"kind": "gpu", "type": "H1000"}}, "accelerator.type = 'H1000': input should be 'A100'"),
        ({"accelerator": {"kind": "cpu", "nodes": 2, "fewest_nodes": 3}}, "fewest_nodes = 3 is more than nodes = 2"),
        ({"environment": {"HF_TOKEN": "x"}}, "HF_TOKEN looks like a secret, and a spec is read by many; keep it in"),
        ({"environment": {"A": "sk-abc"}}, "A looks like a secret"),
        ({"environment": {"a-b": "x"}}, "'a-b' is no name of a variable"),
        ({"environment": {"SLURM_PROCID": "0"}}, "SLURM_PROCID is set by the launcher itself; remove it"),
        ({"bucket": "my-bucket"}, "bucket = 'my-bucket': string should match pattern"),
        ({"retries": -1}, "retries = -1: input should be greater than or equal to 0"),
        ({"slurm": {"options": ["-p gpus"]}}, "slurm.options.0 = '-p gpus'"),
        ({"reties": 3}, "reties = 3: unknown key; did you mean 'retries'?"),
    ],
)
def test_a_fault_is_told_with_field_value_rule_and_remedy(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec(**changed)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("topology", "slices", "tpu_type", "hosts", "devices"),
    [
        ("v5p:4x4x4", 1, "v5p-128", 16, 4),
        ("v4:2x2x1", 1, "v4-8", 1, 4),
        ("v5e:16x16", 2, "v5litepod-256", 128, 4),
        ("v5e:2x4", 1, "v5litepod-8", 1, 8),
        ("v6e:1x1", 1, "v6e-1", 1, 1),
        ("v6e:16x16", 1, "v6e-256", 64, 4),
    ],
)
def test_hosts_of_tpu_slices(topology: str, slices: int, tpu_type: str, hosts: int, devices: int) -> None:
    found = hosts_of(spec(accelerator={"kind": "tpu", "topology": topology, "slices": slices}))
    assert (found.tpu_type, found.count, found.devices, found.slices) == (tpu_type, hosts, devices, slices)


def test_the_number_of_slices_stands_in_one_place() -> None:
    assert command_of(spec(accelerator=TPU)) == ("train", "c.yaml", "mesh.slice=2")
    assert command_of(spec(accelerator=TPU | {"slices": 1}))[-1] == "mesh.slice=1"
    assert command_of(spec()) == ("train", "c.yaml")


def test_a_stage_of_one_process_gets_one_host_unless_it_fans_out() -> None:
    many = {"kind": "cpu", "nodes": 2}
    with pytest.raises(SpecError, match="evaluate is run by one process, but the accelerator has 2 hosts; give one"):
        command_of(spec(command=["evaluate", "e.yaml"], accelerator=many))
    assert command_of(spec(command=["evaluate", "e.yaml", "engine=ray"], accelerator=many))[-1] == "engine=ray"
    assert ray_scaling(spec(accelerator=many | {"fewest_nodes": 1}))["num_workers"] == 2


def test_all_that_a_platform_lacks_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        checked_for(spec(accelerator=TPU), "tpu-vm")
    told = str(caught.value)
    assert all(name in told for name in ("google.project", "google.zone", "source", "setup"))
    assert "image" not in told  # which others need


def test_shell_variables_survive_every_character(tmp_path: Path) -> None:
    nasty = 'it\'s $HOME `x` "q"; \\ é'
    text = shell_variables(spec(command=["train", nasty], environment={"A": nasty}, setup=[nasty, "b"]))
    script = text + 'printf "%s\\n" "${COMMAND[@]}" "${ENVIRONMENT[@]}" "${SETUP[@]}" "$NAME" "${#SBATCH_OPTIONS[@]}"'
    done = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["train", nasty, f"A={nasty}", nasty, "b", "job", "0"]


def test_a_template_is_filled_in_and_drops_what_is_not_asked_for(tmp_path: Path) -> None:
    template = tmp_path / "t.yaml"
    template.write_text(
        "name: ${name} # $NAME and $(date) stay\nenv:\n  ${env_items}\n"
        "#? spot\nspot: yes\n#?\n#? tpu_type\nx: 1\n#?\nend: 1\n"
    )
    text = filled(spec(environment={"A": "1", "B": 'say "hi"'}, accelerator=TPU), template)
    assert text == (
        'name: job # $NAME and $(date) stay\nenv:\n  - {"name": "A", "value": "1"}\n'
        '  - {"name": "B", "value": "say \\"hi\\""}\nx: 1\nend: 1\n'
    )
    template.write_text("${nme}")
    with pytest.raises(SpecError, match=r"\$\{nme\}: no such value; known: name, command"):
        filled(spec(), template)


def test_faults_are_messages_and_no_tracebacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: job\ncommand: [train, c.yaml]\naccelerator: {kind: cpu}\n")
    assert main(["launch", str(path), "--on", "gke"]) == 2
    assert "job cannot be launched by gke" in capsys.readouterr().err
    assert main(["launch", str(path), "--fill", str(tmp_path / "absent.yaml")]) == 2
    assert "absent.yaml: cannot read it (No such file or directory)" in capsys.readouterr().err
