"""Manifests and Dockerfiles before the validators of those who read them: JobSet, Kubernetes, SkyPilot, hadolint.

make test-launch
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.dry_runs import ROOT, dry_run

pytestmark = pytest.mark.launch

KUBERNETES = "1.33"


def jobset(name: str) -> dict[str, Any]:
    """Returns the manifest that a dry run of launch/gke/submit.sh prints between its commands."""
    text = dry_run(name)
    return yaml.safe_load(text[text.index("# A JobSet") : text.index("\nkubectl apply")])


def task(name: str) -> dict[str, Any]:
    text = dry_run(name)
    return yaml.safe_load(text[: text.index("\nsky jobs launch")])


def faults_of_jobset(manifest: dict[str, Any]) -> str:
    """Returns what JobSet's own model and Kubernetes's schema of jobs have against a manifest, "" if nothing."""
    import kubernetes_validate
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    try:
        understood = JobsetV1alpha2JobSet.from_dict(manifest)
        assert understood is not None
        lost = missing_in(understood.to_dict(), manifest)
        if lost:
            return f"unknown: {lost}"
        for job in manifest["spec"]["replicatedJobs"]:
            body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
            kubernetes_validate.validate(body, KUBERNETES, strict=True)
    except (ValueError, kubernetes_validate.ValidationError) as error:
        return str(error)
    return ""


def missing_in(understood: Any, given: Any, place: str = "") -> list[str]:
    """Returns where the model lost or changed what was given: keys that it does not know."""
    if isinstance(given, dict) and isinstance(understood, dict):
        return [fault for key in given for fault in missing_in(understood.get(key), given[key], f"{place}.{key}")]
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        return [
            fault
            for index, (one, other) in enumerate(zip(understood, given, strict=True))
            for fault in missing_in(one, other, f"{place}[{index}]")
        ]
    return [] if understood == given else [place]


@pytest.mark.parametrize("name", ["gke-tpu", "gke-slices", "gke-slice-lost", "gke-gpu"])
def test_jobset_and_kubernetes_accept_the_manifests(name: str) -> None:
    assert faults_of_jobset(jobset(name)) == ""


def test_the_validators_find_faults() -> None:
    misspelt = jobset("gke-tpu")
    misspelt["spec"]["failurePolicy"]["maxRestart"] = 3
    assert "maxRestart" in faults_of_jobset(misspelt)
    deep = jobset("gke-gpu")
    deep["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["restartPolicies"] = "Never"
    assert "restartPolicies" in faults_of_jobset(deep)
    wrong_type = jobset("gke-gpu")
    wrong_type["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"] = "eight"
    assert faults_of_jobset(wrong_type) != ""


def test_a_lost_slice_leaves_a_smaller_job_of_the_same_spec() -> None:
    whole, smaller = jobset("gke-slices")["spec"], jobset("gke-slice-lost")["spec"]
    (of_whole,), (of_smaller,) = whole["replicatedJobs"], smaller["replicatedJobs"]
    assert (of_whole["replicas"], of_smaller["replicas"]) == (2, 1)
    commands = [
        job["template"]["spec"]["template"]["spec"]["containers"][0]["command"][-1] for job in (of_whole, of_smaller)
    ]
    assert commands == ["mesh.slice=2", "mesh.slice=1"]


def sky_task(config: dict[str, Any], home: Path) -> str:
    """Returns what SkyPilot makes of a task, in a process with a home of its own, into which it writes."""
    code = "import sys, yaml, sky; print(sky.Task.from_yaml_config(yaml.safe_load(sys.stdin)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=yaml.safe_dump(config),
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout if done.returncode == 0 else f"refused: {done.stderr}"


@pytest.mark.parametrize(
    ("name", "resources"),
    [("skypilot-tpu", "GCP([Spot], {'tpu-v5p-128': 1}"), ("skypilot-gpu", "GCP([Spot], {'H100': 8}")],
)
def test_skypilot_accepts_the_tasks(name: str, resources: str, tmp_path: Path) -> None:
    assert resources in sky_task(task(name), tmp_path)


def test_skypilot_refuses_an_unknown_key(tmp_path: Path) -> None:
    wrong = task("skypilot-tpu")
    wrong["resources"]["use_spots"] = True
    assert sky_task(wrong, tmp_path).startswith("refused: ")


@pytest.mark.parametrize("kind", ["cpu", "tpu", "cuda"])
def test_hadolint_has_nothing_against_a_dockerfile_and_it_copies_what_is_there(kind: str) -> None:
    path = ROOT / "launch" / "docker" / f"{kind}.Dockerfile"
    done = subprocess.run([str(Path(sys.executable).with_name("hadolint")), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    lines = path.read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert "requirements/core.txt" in copied and all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(f"!{name.partition('/')[0]}" in ignored for name in copied)


def test_hadolint_finds_faults(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python:latest\nRUN cd /tmp && pip install jax\n")
    done = subprocess.run([str(Path(sys.executable).with_name("hadolint")), str(path)], capture_output=True, text=True)
    assert done.returncode != 0
