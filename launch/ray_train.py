"""Runs a launch spec on a Ray cluster; on one of its nodes, from the checkout, which all nodes share:

    python launch/ray_train.py configs/launch/wizardcoder-34b-h100.yaml [a.b=value ...]

Training, and the doctor: Ray Train's JaxTrainer puts a worker on every host, and each starts jaxwiz as a process of its
own, so that a run ends and says why as everywhere. After a lost host, a preemption or an error Ray starts all again,
`retries` times; with fewest_nodes also on fewer hosts with GPUs. Other stages become a Ray job (ray_address =
http://HEAD:8265), and fan out by their own `engine=ray`. DRY_RUN=1 prints what would be run.
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
from jaxwiz.exit_codes import BAD_INPUT, FAILED
from jaxwiz.files import UserError
from jaxwiz.launch.config import LaunchConfig
from jaxwiz.launch.facts import command_of, ray_scaling


def run_on_worker(job: dict[str, Any]) -> int:
    """Returns the exit code of one process of the job; raises where Ray has to start all of them again."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    with socket.create_server(("", 0)) as server:
        address = f"{ray.util.get_node_ip_address()}:{server.getsockname()[1]}"
    context = ray.train.get_context()
    place = {"JAXWIZ_COORDINATOR": broadcast_from_rank_zero(address)}
    place |= {"JAXWIZ_PROCESSES": str(context.get_world_size()), "JAXWIZ_PROCESS_ID": str(context.get_world_rank())}
    # A worker that Ray ends, or that ends with its node, takes its process along: no two starts may run at a time.
    command = ["setpriv", "--pdeathsig", "KILL", "--", *job["command"]]
    code = subprocess.run(command, cwd=job["checkout"], env={**os.environ, **job["environment"], **place}).returncode
    if code not in (0, BAD_INPUT):  # what another start may mend
        raise RuntimeError(f"process {context.get_world_rank()} ended with exit code {code}")
    return code


def main(arguments: list[str]) -> int:
    """Returns the exit code: 1 if Ray gave up, 2 if the config is wrong."""
    spec = load_config(Path(arguments[0]), LaunchConfig, arguments[1:])
    command, environment, dry = command_of(spec), dict(spec.environment), os.environ.get("DRY_RUN")
    if command[0] not in ("train", "doctor"):
        submit = ["ray", "job", "submit", f"--address={spec.ray_address}"]
        submit += [f"--runtime-env-json={json.dumps({'env_vars': environment})}", "--", "jaxwiz", *command]
        print(shlex.join(submit))
        return 0 if dry else subprocess.run(submit).returncode
    words = [sys.executable, "-m", "jaxwiz.cli", *command]
    job = {"command": words, "checkout": os.getcwd(), "environment": environment}
    retries = spec.retries if command[0] == "train" else 0
    if dry:
        print(json.dumps({"job": job, "scaling": ray_scaling(spec), "max_failures": retries}, indent=1))
        return 0
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.v2.jax import JaxTrainer

    ray.init(address=spec.ray_address)
    run = RunConfig(name=spec.name, failure_config=FailureConfig(max_failures=retries))
    scale = ScalingConfig(**ray_scaling(spec))
    try:
        ended = JaxTrainer(run_on_worker, train_loop_config=job, scaling_config=scale, run_config=run).fit()
    except TrainingFailedError as error:
        print(f"launch/ray_train.py: given up after {retries + 1} start(s): {error}", file=sys.stderr)
        return FAILED
    return ended.return_value  # that of process 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
    except UserError as error:
        print(f"launch/ray_train.py: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
