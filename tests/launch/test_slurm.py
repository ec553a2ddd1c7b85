"""launch/slurm.sbatch on a real Slurm of two nodes: a job that trains, is preempted, requeues and goes on.

make test-slurm
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launch.slurm_cluster import SlurmCluster, reason_to_skip

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]
SBATCH = ROOT / "launch" / "slurm.sbatch"
STAND_IN = ROOT / "tests" / "launch" / "preempted_stage.sh"
JAXWIZ = Path(sys.executable).with_name("jaxwiz")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


def write_spec(path: Path, name: str, command: str, retries: int = 3) -> Path:
    path.write_text(
        f"name: {name}\ncommand: {command}\naccelerator: {{kind: cpu, nodes: 2}}\nretries: {retries}\n"
        "grace_s: 60\nenvironment: {COLOUR: deep blue, JAX_PLATFORMS: cpu}\nslurm: {time_limit: '10'}\n"
    )
    return path


def submit(slurm: SlurmCluster, spec: Path, **environ: str) -> str:
    """Returns the number of the job."""
    done = subprocess.run(
        [str(SBATCH), str(spec)],
        env={**slurm.environ, "JAXWIZ": str(JAXWIZ), "REAL_JAXWIZ": str(JAXWIZ), **environ},
        capture_output=True,
        text=True,
        cwd=spec.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def wait_for(slurm: SlurmCluster, job: str, happened: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Returns the job's state once `happened`; a requeued job need not wait for its turn."""
    give_up_at = time.monotonic() + 180
    pending_since = time.monotonic()
    while not happened(state := slurm.state(job)):
        assert not ended(state) and time.monotonic() < give_up_at, (state["JobState"], state["Reason"], log_of(state))
        if state["JobState"] != "PENDING" or state["Reason"] != "BeginTime":
            pending_since = time.monotonic()
        # Slurm lets a requeued job wait for 2 minutes. Less than some seconds it needs: a node refuses what is dated of
        # the second in which it was told that the job is over.
        elif time.monotonic() > pending_since + 4:
            slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            pending_since = time.monotonic()
        time.sleep(0.2)
    return state


def log_of(state: dict[str, str]) -> str:
    path = Path(state["StdOut"])
    logs = [path, *sorted(path.with_suffix("").glob("process-*.log"))]
    return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs if log.exists())


def remove_logs(state: dict[str, str]) -> None:
    path = Path(state["StdOut"])
    for log in [path, *path.with_suffix("").glob("process-*.log")]:
        log.unlink()
    path.with_suffix("").rmdir()


def ended(state: dict[str, str]) -> bool:
    return state["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def running(starts: int, folder: Path) -> Callable[[dict[str, str]], bool]:
    def happened(state: dict[str, str]) -> bool:
        files = [folder / f"starts-{index}" for index in (0, 1)]
        return all(file.exists() and len(file.read_text().splitlines()) >= starts for file in files)

    return happened


def test_a_preempted_job_goes_back_in_the_queue_and_is_started_anew(slurm: SlurmCluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", "stand-in", f"[train, {tmp_path}]")
    job = submit(slurm, spec, JAXWIZ=str(STAND_IN))
    wait_for(slurm, job, running(1, tmp_path))
    slurm.ask("scancel", "--signal=TERM", job)  # to the processes
    wait_for(slurm, job, running(2, tmp_path))
    slurm.ask("scancel", "--signal=TERM", "--batch", job)  # to the script alone, which passes it on
    state = wait_for(slurm, job, ended)
    log = log_of(state)
    assert (state["JobState"], state["Restarts"], state["ExitCode"]) == ("COMPLETED", "2", "0:0"), log
    for index in (0, 1):
        lines = (tmp_path / f"starts-{index}").read_text().splitlines()
        assert lines == [f"{index} of 2 on n{index + 1}, colour deep blue"] * 3
    assert log.count("preempted: back in the queue") == 2
    remove_logs(state)


def test_a_cancelled_job_stays_cancelled(slurm: SlurmCluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", "stand-in", f"[train, {tmp_path}]")
    job = submit(slurm, spec, JAXWIZ=str(STAND_IN))
    wait_for(slurm, job, running(1, tmp_path))
    slurm.ask("scancel", job)
    wait_for(slurm, job, ended)
    give_up_at = time.monotonic() + 20
    while "ended with exit code" not in log_of(state := slurm.state(job)):  # the script's last word, after Slurm's
        assert time.monotonic() < give_up_at, log_of(state)
        time.sleep(0.2)
    assert "ended with exit code 42" in log_of(state) and "back in the queue" not in log_of(state)
    assert (state["JobState"], state["Restarts"]) == ("CANCELLED", "0")
    remove_logs(state)


def test_a_job_is_not_started_more_often_than_the_spec_says(slurm: SlurmCluster, tmp_path: Path) -> None:
    spec = write_spec(tmp_path / "spec.yaml", "stand-in", f"[train, {tmp_path}]", retries=0)
    job = submit(slurm, spec, JAXWIZ=str(STAND_IN))
    wait_for(slurm, job, running(1, tmp_path))
    slurm.ask("scancel", "--signal=TERM", job)
    state = wait_for(slurm, job, ended)
    assert (state["JobState"], state["Restarts"], state["ExitCode"]) == ("FAILED", "0", "42:0"), log_of(state)
    remove_logs(state)


def kill_process(job: str, index: int) -> None:
    """Kills one process of a job, as a failing node does."""
    marks = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={index}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if marks <= set((folder / "environ").read_bytes().split(b"\0")) and b"train" in words:
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:  # ended meanwhile
            continue


def test_training_goes_on_after_preemption_and_a_loss_with_the_losses_of_an_uninterrupted_run(
    slurm: SlurmCluster, tmp_path: Path, tiny_checkpoint: Path, tiny_dataset: Path
) -> None:
    from jaxwiz.train.metrics import read_metrics

    found = {}
    for name in ("whole", "preempted"):
        config = tmp_path / f"{name}.yaml"
        config.write_text(
            f"stage: train\nout: {tmp_path}/{name}\ndataset: {tiny_dataset}\ncheckpoint: {tiny_checkpoint}\n"
            "batch: {rows: 8}\nsteps: 120\nseed: 3\noptimizer: {learning_rate: 3e-3, warmup_steps: 2}\n"
            "compute: {loss_chunk_positions: 64}\nintervals: {checkpoint_steps: 1000, eval_steps: 1000}\n"
        )
        spec = write_spec(tmp_path / f"{name}-spec.yaml", name, f"[train, {config}]")
        job = submit(slurm, spec, XLA_FLAGS="--xla_force_host_platform_device_count=1", NPROC="64")
        metrics = tmp_path / name / "metrics.jsonl"
        if name == "preempted":
            wait_for(slurm, job, lambda state: ended(state) or len(read_metrics(metrics)) >= 10)  # noqa: B023
            slurm.ask("scancel", "--signal=TERM", job)
            wait_for(slurm, job, lambda state: ended(state) or state["Restarts"] == "1")
            saved = len(read_metrics(metrics))
            wait_for(slurm, job, lambda state: ended(state) or len(read_metrics(metrics)) >= saved + 5)  # noqa: B023
            kill_process(job, 1)
        state = wait_for(slurm, job, ended)
        assert state["JobState"] == "COMPLETED", log_of(state)
        found[name] = read_metrics(metrics), state
    (whole, state), (preempted, state_of_preempted) = found["whole"], found["preempted"]
    assert state["Restarts"] == "0" and state_of_preempted["Restarts"] == "2", log_of(state_of_preempted)
    assert "2 processes, launched by Slurm job" in log_of(state_of_preempted)
    # No periodic state lies on disk (checkpoint_steps): it went on from the one that it saved when told to end.
    said = log_of(state_of_preempted)
    assert "resum" in said.lower() and "preempted: back" in said and "lost a process (exit code 137): back" in said
    assert [line["loss"] for line in preempted if "loss" in line] == [line["loss"] for line in whole if "loss" in line]
    for one in found.values():
        remove_logs(one[1])


def test_what_would_be_submitted_is_printed(tmp_path: Path) -> None:
    environ = {**os.environ, "DRY_RUN": "1", "JAXWIZ": str(JAXWIZ)}
    spec = ROOT / "configs" / "launch" / "wizardcoder-34b-h100.yaml"
    done = subprocess.run([str(SBATCH), str(spec)], env=environ, capture_output=True, text=True)
    assert done.stdout.split() == [
        *("sbatch", "--job-name=wizardcoder-34b", "--nodes=4-8", "--ntasks-per-node=1", f"--chdir={ROOT}"),
        *("--time=2-00:00:00", "--signal=TERM@120", "--output=runs/slurm/%x-%j.log", "--exclusive"),
        *("--gpus-per-node=8", "launch/slurm.sbatch", str(spec)),
    ]
