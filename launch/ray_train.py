"""Runs a launch spec on a Ray cluster; on one of its nodes, from the checkout, which all nodes share:

    python launch/ray_train.py configs/launch/wizardcoder-34b-h100.yaml [a.b=value ...]

Training: Ray Train's JaxTrainer puts a worker on every host, and each worker starts `jaxwiz train` as a process of its
own, so that a run ends and says why as it does everywhere. After a lost host, a preemption or an error Ray starts all
of them again, `retries` times; with fewest_nodes also on fewer hosts with GPUs. Other stages are submitted as a Ray job
(ray_address = http://HEAD:8265), and fan out over the cluster by their own `engine=ray`.
DRY_RUN=1 prints what would be run.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from jaxwiz.config import load_config
from jaxwiz.files import UserError
from jaxwiz.launch.config import LaunchConfig
from jaxwiz.launch.facts import command_of, ray_scaling

JAXWIZ = (sys.executable, "-m", "jaxwiz.cli")


def run_on_worker(job: dict[str, Any]) -> None:
    """Runs one process of the job; an error, by which Ray knows that all have to start again, if it fails."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    with socket.create_server(("", 0)) as server:
        address = f"{ray.util.get_node_ip_address()}:{server.getsockname()[1]}"
    context = ray.train.get_context()
    place = {
        "JAXWIZ_COORDINATOR": broadcast_from_rank_zero(address),
        "JAXWIZ_PROCESSES": str(context.get_world_size()),
        "JAXWIZ_PROCESS_ID": str(context.get_world_rank()),
    }
    # A worker that Ray ends, or that ends with its node, takes its process along: no two starts may run at a time.
    command = ["setpriv", "--pdeathsig", "KILL", "--", *job["command"]]
    code = subprocess.run(command, cwd=job["checkout"], env={**os.environ, **job["environment"], **place}).returncode
    if code:
        raise RuntimeError(f"process {context.get_world_rank()} ended with exit code {code}")


def main(arguments: list[str]) -> int:
    """Returns 0 once the command has run to its end, 1 if Ray gave up, 2 if the spec or the config is wrong."""
    spec = load_config(Path(arguments[0]), LaunchConfig, arguments[1:])
    command, environment = command_of(spec), dict(spec.environment)
    if command[0] != "train":
        submit = ["ray", "job", "submit", f"--address={spec.ray_address}"]
        submit += [f"--runtime-env-json={json.dumps({'env_vars': environment})}", "--", "jaxwiz", *command]
        print(shlex.join(submit))
        return 0 if os.environ.get("DRY_RUN") else subprocess.run(submit).returncode
    job = {"command": [*JAXWIZ, *command], "checkout": os.getcwd(), "environment": environment}
    if os.environ.get("DRY_RUN"):
        print(json.dumps({"job": job, "scaling": ray_scaling(spec), "max_failures": spec.retries}, indent=1))
        return 0
    if subprocess.run([*JAXWIZ, "show", *command[1:]], stdout=subprocess.DEVNULL).returncode:
        return 2  # said by `show`; Ray would start a wrong config again and again
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    ray.init(address=spec.ray_address)
    run = RunConfig(name=spec.name, failure_config=FailureConfig(max_failures=spec.retries))
    scale = ScalingConfig(**ray_scaling(spec))
    JaxTrainer(run_on_worker, train_loop_config=job, scaling_config=scale, run_config=run).fit()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
    except UserError as error:
        print(f"launch/ray_train.py: {error}", file=sys.stderr)
        sys.exit(2)
