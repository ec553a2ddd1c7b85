"""The cloud scripts: what a dry run prints, and what they do when the cloud, played by stand-in programs, fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch.dry_runs import DRY_RUNS, GOLDEN, H100, ROOT, TWO_SLICES, V5P, dry_run

Answer = tuple[str, int, str, int | None]  # pattern of the command line, exit code, output, how often (None: always)


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_every_command(name: str) -> None:
    assert dry_run(name) == (GOLDEN / f"{name}.txt").read_text()


@pytest.fixture
def cloud(tmp_path: Path) -> "Cloud":
    return Cloud(tmp_path)


class Cloud:
    """Programs of the names of the real ones, in a folder that is first in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("gcloud", "kubectl", "xpk", "sky"):
            (folder / name).symlink_to(ROOT / "tests" / "launch" / "stand_in.py")

    def run(self, *command: str, answers: list[Answer], **environ: str) -> tuple[int, str, list[str]]:
        """Returns exit code, output and the command lines of all calls of stand-ins."""
        (self.folder / "answers.json").write_text(json.dumps(answers))
        every: dict[str, Any] = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "STAND_IN": str(self.folder),
            "JAXWIZ": str(Path(sys.executable).with_name("jaxwiz")),
            "POLL_S": "0.01",
            **environ,
        }
        done = subprocess.run(command, cwd=ROOT, env=every, capture_output=True, text=True, timeout=120)
        calls = self.folder / "calls"
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines() if calls.exists() else []


def kinds(calls: list[str]) -> list[str]:
    """Returns what calls of gcloud were about: create, delete, install, run; not the polling."""
    names = {
        "queued-resources create": "create",
        "queued-resources delete": "delete",
        "git clone": "install",
        "setsid": "run",
    }
    return [kind for call in calls for pattern, kind in names.items() if pattern in call]


STATE = "describe .*state.state"
CODES = "cat jaxwiz.code"
ONCE = ["create", "install", "run"]


def test_a_tpu_job_runs_from_nothing_to_its_end(cloud: Cloud) -> None:
    answers: list[Answer] = [
        (STATE, 1, "", 1),  # there is none yet
        (STATE, 0, "WAITING_FOR_RESOURCES", 2),
        (STATE, 0, "ACTIVE", None),
        (CODES, 0, "code running\ncode running", 2),
        (CODES, 0, "code 0\ncode 0", None),
    ]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "delete"]
    assert all("--project=my-project --zone=us-east5-a" in call for call in calls)


def test_hosts_are_kept_if_asked(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None), (CODES, 0, "code 0", None)]
    code, _, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers, KEEP="1")
    assert code == 0 and kinds(calls) == ONCE


def test_after_a_preemption_in_the_middle_new_hosts_are_asked_for(cloud: Cloud) -> None:
    answers: list[Answer] = [
        (STATE, 1, "", 1),
        (STATE, 0, "ACTIVE", 2),  # created, and seen to run once
        (CODES, 0, "code running", 1),
        (CODES, 255, "", 1),  # hosts that are gone do not answer
        (STATE, 0, "SUSPENDED", 2),
        (STATE, 0, "ACTIVE", None),
        (CODES, 0, "code 0", None),
    ]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "delete", *ONCE, "delete"]
    assert "ended: taken" in out


def test_after_exit_code_42_the_same_hosts_go_on(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None)]
    answers += [(CODES, 0, "code 42\ncode 42", 1), (CODES, 0, "code 0", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "install", "run", "delete"]


def test_after_a_hang_new_hosts_are_asked_for(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None)]
    answers += [(CODES, 0, "code 43\ncode 1", 1), (CODES, 0, "code 0", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "delete", *ONCE, "delete"]


def test_a_host_that_does_not_answer_while_others_run_is_waited_for(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None)]
    answers += [(CODES, 255, "code running", 3), (CODES, 0, "code 0\ncode 0", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "delete"]
    assert "not every host of wizardcoder-34b answered" in out


def test_a_host_that_does_not_answer_any_more_costs_the_hosts(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None)]
    answers += [(CODES, 255, "code 1\ncode 1", 1), (CODES, 0, "code 0", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 0, out
    assert kinds(calls) == [*ONCE, "delete", *ONCE, "delete"]


def test_a_wrong_config_is_not_started_again(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None), (CODES, 0, "code 2\ncode 1", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, answers=answers)
    assert code == 2 and "the config is wrong" in out
    assert kinds(calls) == ONCE


def test_retries_come_to_an_end(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), (STATE, 0, "ACTIVE", None), (CODES, 0, "code 42", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, "retries=2", answers=answers)
    assert code == 1 and "given up after 3 starts" in out
    assert kinds(calls) == ["create", *["install", "run"] * 3]


def test_hosts_that_cannot_be_had_count_as_a_start(cloud: Cloud) -> None:
    answers: list[Answer] = [(STATE, 1, "", 1), ("create", 1, "no quota", None), (STATE, 1, "", None)]
    code, out, calls = cloud.run("launch/tpu_vm_up.sh", V5P, "retries=1", answers=answers)
    assert code == 1 and out.count("no quota") == 2
    assert kinds(calls) == ["create"] * 2


def test_all_slices_get_every_command_and_the_silent_one_is_named(cloud: Cloud) -> None:
    answers: list[Answer] = [("ssh wizardcoder-34b-1 ", 255, "", None)]
    code, out, calls = cloud.run("launch/tpu_vm.sh", "install", TWO_SLICES, answers=answers)
    assert code == 1 and "not every host of wizardcoder-34b-1 answered and did it: install" in out
    assert sorted(call.split()[5] for call in calls) == ["wizardcoder-34b-0", "wizardcoder-34b-1"]


def test_a_command_arrives_on_a_host_as_it_was_given(cloud: Cloud, tmp_path: Path) -> None:
    """The command that ssh is given is run by a shell, in a home of its own."""
    home = tmp_path / "home"
    (home / "jaxwiz" / ".venv" / "bin").mkdir(parents=True)
    program = home / "jaxwiz" / ".venv" / "bin" / "jaxwiz"
    program.write_text('#!/bin/sh\necho "$FLAGS"\nprintf "<%s>" "$@"\nexit 42\n')
    program.chmod(0o755)
    options = ("environment={FLAGS: --a='1 2' --b}", 'command=[train, c.yaml, "out=it\'s here"]')
    _, _, calls = cloud.run("launch/tpu_vm.sh", "run", V5P, *options, answers=[])
    (call,) = calls
    script = call.partition("--command=")[2]
    subprocess.run(["bash", "-c", f"{script} wait"], cwd=home, env={"HOME": str(home), "PATH": os.environ["PATH"]})
    assert (home / "jaxwiz.log").read_text() == "--a='1 2' --b\n<train><c.yaml><out=it's here><mesh.slice=1>"
    assert (home / "jaxwiz.code").read_text() == "42\n"


@pytest.mark.parametrize(("state", "expected"), [("Completed", 0), ("Failed", 1)])
def test_a_jobset_is_followed_to_its_end(cloud: Cloud, state: str, expected: int) -> None:
    answers: list[Answer] = [
        ("get jobset", 0, "", 2),
        ("get jobset", 0, state, None),
        ("logs", 1, "no pod yet", 1),
        ("logs", 0, "step 1", None),
    ]
    code, out, calls = cloud.run("launch/gke/submit.sh", V5P, answers=answers, KUBECTL="--context=mine")
    assert code == expected and f"jobset wizardcoder-34b: {state}" in out and "step 1" in out
    assert [call.split()[2] for call in calls[:3]] == ["delete", "apply", "get"]
    assert all(call.startswith("kubectl --context=mine ") for call in calls)


def test_a_jobset_that_cannot_be_submitted_or_asked_after_is_a_failure(cloud: Cloud) -> None:
    code, _, calls = cloud.run("launch/gke/submit.sh", H100, answers=[("apply", 1, "no such kind", None)])
    assert code == 1 and len(calls) == 2
    code, out, _ = cloud.run("launch/gke/submit.sh", H100, answers=[("get jobset", 1, "", None)])
    assert code == 1 and "no answer about it" in out


def test_a_jobset_is_stopped_by_deleting_it(cloud: Cloud) -> None:
    code, _, calls = cloud.run("launch/gke/submit.sh", V5P, "--delete", answers=[])
    assert code == 0
    assert calls == ["kubectl delete jobset/wizardcoder-34b --namespace=default --ignore-not-found --wait"]


@pytest.mark.parametrize("script", ["launch/gke/xpk.sh", "launch/skypilot.sh"])
def test_the_exit_code_of_the_platform_is_passed_on(cloud: Cloud, script: str) -> None:
    code, _, calls = cloud.run(script, V5P, answers=[(".", 3, "", None)])
    assert code == 3 and len(calls) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("launch/tpu_vm.sh", "create", H100), "accelerator.kind = 'gpu': must be 'tpu' for TPU VMs"),
        (("launch/tpu_vm_up.sh", V5P, "google.zone=''"), "google.zone = '': needed to create TPU VMs"),
        (("launch/gke/submit.sh", V5P, "image=''"), "image = '': pods need a container image"),
        (("launch/gke/xpk.sh", H100), "only TPU slices here"),
        (("launch/skypilot.sh", TWO_SLICES), "SkyPilot joins no slices"),
        (("launch/slurm.sbatch", V5P), "Slurm has GPU or CPU nodes"),
    ],
)
def test_what_a_platform_cannot_do_is_told_before_anything_is_called(
    cloud: Cloud, command: tuple[str, ...], message: str
) -> None:
    code, out, calls = cloud.run(*command, answers=[])
    assert code == 2 and message in out and "Traceback" not in out
    assert calls == []


@pytest.mark.parametrize("script", ["tpu_vm.sh", "tpu_vm_up.sh", "gke/submit.sh", "gke/xpk.sh", "skypilot.sh"])
def test_wrong_use_is_told(cloud: Cloud, script: str) -> None:
    code, out, _ = cloud.run(f"launch/{script}", answers=[])
    assert code == 2 and out.startswith(f"usage: launch/{script}")
