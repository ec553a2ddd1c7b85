"""`jaxwiz doctor`: examine this host, or every host of a job that a launcher starts it on."""

import argparse
from pathlib import Path

SUMMARY = "examine the hosts of a pod, or this one: devices, versions, clocks, disk, ports, a collective, attention"
DESCRIPTION = (
    "Start it as training is started, on every host: launch/local.sh 2 doctor; launch/slurm.sbatch SPEC "
    "command=[doctor]. Exit code 1: a host is faulty, or unlike the others."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC.yaml", help="launch spec: what to expect")
    parser.add_argument("--folder", default="runs", help="where results will go (runs), or gs://BUCKET/PATH for states")
    parser.add_argument("--min-free-gib", type=float, default=20.0, metavar="N", help="that its disk has to have (20)")
    parser.add_argument("--timeout-s", type=float, default=180.0, metavar="N", help="for each part (180)")


def run(options: argparse.Namespace) -> int:
    """Returns 0 if all hosts are sound and alike, else 1.

    Raises:
      UserError: the launch or the spec contradicts itself.
    """
    from etils import epath

    from jaxwiz.doctor.run import examine
    from jaxwiz.sharding.processes import join

    processes = join()
    expected = None
    if options.spec:
        from jaxwiz.config import load_config
        from jaxwiz.launch.config import LaunchConfig
        from jaxwiz.launch.facts import hosts_of

        hosts = hosts_of(load_config(options.spec, LaunchConfig))
        expected = (hosts.count, hosts.devices or None)
    sound = examine(processes, epath.Path(options.folder), options.min_free_gib, options.timeout_s, expected)
    processes.leave()
    return 0 if sound else 1
