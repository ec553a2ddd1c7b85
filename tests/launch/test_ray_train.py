"""launch/ray_train.py: what it asks of Ray, and a real cluster of two nodes of which one is lost while it trains.

make test-ray
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.dry_runs import H100, QUICKSTART, ROOT, TWO_SLICES
from tests.ray_cluster import TwoNodes

SCRIPT = ROOT / "launch" / "ray_train.py"


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DRY_RUN": "1"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=ROOT, env=environ, capture_output=True, text=True
    )


def test_gpus_get_a_worker_a_host_and_may_become_fewer() -> None:
    asked = json.loads(dry_run(H100).stdout)
    assert asked["scaling"] == {
        "num_workers": [4, 8],
        "use_gpu": True,
        "resources_per_worker": {"GPU": 8},
        "placement_strategy": "STRICT_SPREAD",
    }
    assert asked["max_failures"] == 50 and asked["job"]["checkout"] == str(ROOT)
    assert asked["job"]["command"][-3:] == [
        "configs/train/wizardcoder-34b-v5p-128.yaml",
        "out=runs/wizardcoder-34b-h100/train",
        "batch.micro_batches=8",
    ]


def test_tpu_slices_are_asked_for_by_their_topology() -> None:
    asked = json.loads(dry_run(TWO_SLICES).stdout)
    assert asked["scaling"] == {
        "num_workers": 128,
        "use_tpu": True,
        "topology": "16x16",
        "accelerator_type": "TPU-V5LITEPOD",
        "resources_per_worker": {"TPU": 4},
    }
    assert asked["job"]["command"][-1] == "mesh.slice=2"


def test_stages_that_fan_out_by_themselves_are_submitted_as_jobs() -> None:
    command = "command=[evolve, configs/evolve/wizardcoder.yaml, engine=ray]"
    done = dry_run(QUICKSTART, command, "ray_address=http://head:8265", "environment={A: 'b c'}")
    assert done.stdout.strip() == (
        'ray job submit --address=http://head:8265 \'--runtime-env-json={"env_vars": {"A": "b c"}}\' -- '
        "jaxwiz evolve configs/evolve/wizardcoder.yaml engine=ray"
    )


def test_the_exit_code_of_a_job_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "ray").symlink_to(ROOT / "tests" / "launch" / "stand_in.py")
    (tmp_path / "answers.json").write_text('[["job submit", 3, "", null]]')
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "STAND_IN": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), QUICKSTART, "command=[data, configs/data/quickstart.yaml, engine=ray]"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "calls").read_text().endswith("-- jaxwiz data configs/data/quickstart.yaml engine=ray\n")


def test_the_doctor_is_started_once_on_every_host() -> None:
    asked = json.loads(dry_run(H100, f"command=[doctor, {H100}]").stdout)
    assert asked["job"]["command"][-2:] == ["doctor", H100] and asked["max_failures"] == 0


def test_a_stage_of_one_process_is_refused_on_several_hosts() -> None:
    done = dry_run(H100, "command=[evaluate, configs/evaluate/humaneval.yaml]")
    assert done.returncode == 2 and "evaluate is run by one process, but the accelerator has 8 hosts" in done.stderr


def assert_a_wrong_config_ends_it(spec: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(spec), "command=[train, absent.yaml]"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}, capture_output=True)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2 and "absent.yaml" in said and "RETRY" not in said, said[-3000:]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("accelerator", "replaced"),
    [
        ("{kind: cpu, nodes: 2}", True),
        # Ray is told of GPUs that are not there; the processes it starts train on CPUs.
        ("{kind: gpu, type: H100, per_node: 1, nodes: 2, fewest_nodes: 1}", False),
    ],
    ids=["another node", "elastic"],
)
def test_training_survives_the_loss_of_a_node(
    accelerator: str,
    replaced: bool,
    tmp_path: Path,
    tiny_checkpoint: Path,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray.train", reason="needs Ray: make test-ray")
    # Right after the loss Ray still counts the lost node, and waits so long for it (else 60 s) before it counts again.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
    from jaxwiz.config import load_config
    from jaxwiz.train import run as train_stage
    from jaxwiz.train.config import TrainConfig
    from jaxwiz.train.metrics import read_metrics

    text = (
        f"dataset: {tiny_dataset}\ncheckpoint: {tiny_checkpoint}\nbatch: {{rows: 8}}\nsteps: 60\nseed: 3\n"
        "optimizer: {learning_rate: 3e-3, warmup_steps: 2}\ncompute: {loss_chunk_positions: 64}\n"
        "intervals: {checkpoint_steps: 5, eval_steps: 1000}\n"
    )
    config, spec, log = tmp_path / "train.yaml", tmp_path / "spec.yaml", tmp_path / "log"
    config.write_text(f"stage: train\nout: {tmp_path}/by-ray\n{text}")
    (tmp_path / "one.yaml").write_text(f"out: {tmp_path}/by-one\n{text}")
    cluster = TwoNodes(gpus=0 if replaced else 1)
    driver = None
    try:
        spec.write_text(
            f"name: job\ncommand: [train, {config}]\naccelerator: {accelerator}\nretries: 3\n"
            f"ray_address: '{cluster.address}'\nenvironment: {{JAX_PLATFORMS: cpu, NPROC: '64'}}\n"
        )
        with open(log, "w") as file:
            environ = {**os.environ, "XLA_FLAGS": "", "RAY_USAGE_STATS_ENABLED": "0"}
            driver = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(spec)], cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT
            )
        metrics = tmp_path / "by-ray" / "metrics.jsonl"
        give_up_at = time.monotonic() + 180
        while len(read_metrics(metrics)) < 12:
            assert driver.poll() is None and time.monotonic() < give_up_at, log.read_text()[-4000:]
            time.sleep(0.05)
        cluster.kill_second()
        if replaced:
            cluster.add_second()
        assert driver.wait(300) == 0, log.read_text()[-4000:]
        if replaced:
            assert_a_wrong_config_ends_it(spec)
    finally:
        if driver is not None and driver.poll() is None:
            driver.terminate()
            driver.wait(30)
        cluster.stop()
    train_stage.run(load_config(tmp_path / "one.yaml", TrainConfig))
    found, expected = (
        [line for line in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in line]
        for name in ("by-ray", "by-one")
    )
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, 61))
    for line, other in zip(found, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
    said = log.read_text()
    assert said.count("2 processes, launched by explicit settings") == (2 if replaced else 1), said[-4000:]
