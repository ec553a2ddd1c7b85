"""launch/local.sh: what it starts, how it ends, and that its style is sound."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "launch" / "local.sh"
STAGE = ROOT / "tests" / "launch" / "fake_stage.sh"


def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(LOCAL), *arguments],
        env={**os.environ, "JAXWIZ": str(STAGE), "GPUS": "0", "GRACE_S": "0.5", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ignored where the tests run in the background, and what a shell inherits as ignored it cannot trap.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: str, **environ: str) -> tuple[int, str]:
    process = start(*arguments, **environ)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def test_each_process_gets_its_number_and_the_same_meeting_point() -> None:
    code, out = run("3", "ok", "a b")
    assert code == 0
    found = sorted(re.findall(r"start (\d) of (\d) at (127\.0\.0\.1:\d+), GPUs none: ok a b", out))
    assert [(index, count) for index, count, _ in found] == [("0", "3"), ("1", "3"), ("2", "3")]
    assert len({address for *_, address in found}) == 1


def test_a_dry_run_prints_every_command_and_runs_none() -> None:
    code, out = run("2", "train", "a b.yaml", "steps=3", DRY_RUN="1", GPUS="4", JAXWIZ_COORDINATOR="h:1", JAXWIZ="jw")
    assert code == 0
    assert [line.rstrip() for line in out.splitlines()] == [
        f"env JAXWIZ_COORDINATOR=h:1 JAXWIZ_PROCESSES=2 JAXWIZ_PROCESS_ID={index} CUDA_VISIBLE_DEVICES={gpus} "
        r"jw train a\ b.yaml steps=3"
        for index, gpus in ((0, r"0\,1"), (1, r"2\,3"))
    ]


def test_when_one_fails_all_end_and_its_code_is_returned() -> None:
    began = time.monotonic()
    code, out = run("3", "fail", "7")
    assert code == 7
    assert "TERM 0" in out and "TERM 2" in out
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGTERM, "TERM", 43), (signal.SIGINT, "INT", 44)])
def test_signals_are_passed_on(number: int, name: str, code: int) -> None:
    process = start("2", "wait")
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert all(line.startswith("start") for line in lines)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert sorted(re.findall(r"[A-Z]+ \d", out)) == [f"{name} 0", f"{name} 1"]
    assert process.returncode == code


def spec(folder: Path, retries: int) -> str:
    """Returns a spec of two processes whose stage is preempted the first two times."""
    path = folder / "spec.yaml"
    path.write_text(
        f"name: job\ncommand: [train, {folder}]\naccelerator: {{kind: cpu, nodes: 2}}\nretries: {retries}\n"
        "environment: {COLOUR: deep blue}\n"
    )
    return str(path)


def run_preempted(folder: Path, retries: int, *arguments: str) -> tuple[int, str, list[str]]:
    real = str(Path(sys.executable).with_name("jaxwiz"))
    program = str(STAGE.with_name("preempted_twice.sh"))
    code, out = run(spec(folder, retries), *arguments, JAXWIZ=program, REAL_JAXWIZ=real)
    return code, out, (folder / "starts").read_text().splitlines()


def test_a_spec_is_started_again_after_a_preemption(tmp_path: Path) -> None:
    code, out, starts = run_preempted(tmp_path, 3)
    assert code == 0, out
    assert sorted(starts) == ["0 of 2: deep blue"] * 3 + ["1 of 2: deep blue"] * 3
    assert "preempted (exit code 42); start 2 of 3 again" in out and "start 3 of 3" not in out


def test_a_spec_is_started_no_more_often_than_it_says_and_with_fewer_processes_if_told(tmp_path: Path) -> None:
    code, out, starts = run_preempted(tmp_path, 1, "accelerator.nodes=1")
    assert code == 42, out
    assert starts == ["0 of 1: deep blue"] * 2


def test_a_job_that_was_told_to_end_is_not_started_again(tmp_path: Path) -> None:
    process = start("1", "wait", RETRIES="5", JAXWIZ=str(STAGE.with_name("ends_with_42.sh")))
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 42 and "again" not in out and "started" not in out


@pytest.mark.parametrize("arguments", [(), ("2",), ("0", "train"), ("two", "train")])
def test_wrong_use_is_told(arguments: tuple[str, ...]) -> None:
    code, out = run(*arguments)
    assert code == 2 and out.startswith("usage: launch/local.sh SPEC.yaml")


def test_scripts_are_short_and_shellcheck_has_nothing_against_them() -> None:
    program = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    files = [
        path for path in LOCAL.parent.rglob("*") if path.suffix in (".sh", ".sbatch", ".py", ".yaml", ".Dockerfile")
    ]
    assert [path.name for path in files if len(path.read_text().splitlines()) > 80] == []
    scripts = sorted(path for path in files if path.suffix in (".sh", ".sbatch"))
    assert all("\nset -euo pipefail\n" in script.read_text() for script in scripts)
    stages = sorted(STAGE.parent.glob("*.sh"))
    done = subprocess.run([program, *map(str, scripts + stages)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
