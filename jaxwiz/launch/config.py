"""The launch spec: what is started, on what, and how often again. One file for every platform.

A spec holds no secrets: it is committed, printed by dry runs, and shown by every scheduler. Platforms have sections of
their own only for what no other platform knows. Paths are relative to the checkout, which lies on every host.
"""

import dataclasses
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from jaxwiz.config import section
from jaxwiz.files import UserError
from jaxwiz.plan.chips import Topology
from jaxwiz.stages import STAGES

_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)")
_SECRET_VALUE = re.compile(r"^(hf_|sk-|ghp_|github_pat_|AKIA|ya29\.|-----BEGIN)")
_LAUNCHERS_OWN = ("JAXWIZ_", "SLURM_", "MEGASCALE_", "TPU_WORKER_", "JOBSET_", "SKYPILOT_", "OMPI_")
_OTHER_COMMANDS = ("doctor", "run")


def _require_topology(text: str) -> str:
    try:
        topology = Topology.parse(text)
    except UserError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    if topology.chips > 8 and topology.chips % 4:
        raise ValueError(f"{topology.chips} chips are no whole number of hosts with 4; correct the shape")
    return text


def _require_command(command: tuple[str, ...]) -> tuple[str, ...]:
    known = (*STAGES, *_OTHER_COMMANDS)
    if not command or command[0] not in known:
        raise ValueError(f"must start with one of {', '.join(known)}, and go on as on the command line of jaxwiz")
    return command


def _require_environment(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of a variable; use capitals, digits and _")
        if _SECRET.search(name) or _SECRET_VALUE.match(value):
            raise ValueError(
                f"{name} looks like a secret, and a spec is read by many; keep it in the platform's own store, or in a "
                "file that api_key_file names"
            )
        if name.startswith(_LAUNCHERS_OWN):
            raise ValueError(f"{name} is set by the launcher itself; remove it")
    return environment


@section
class TpuSlices:
    """Slices of a TPU pod, all of the same shape; one process a host.

    Attributes:
      topology: generation and shape of a slice, as `jaxwiz plan --topology` takes it, such as v5p:4x4x4.
      slices: how many, joined by the data-centre network; becomes the recipe's `mesh.slice`.
    """

    kind: Literal["tpu"] = "tpu"
    topology: Annotated[str, AfterValidator(_require_topology)]
    slices: Annotated[int, Field(ge=1, le=256)] = 1


@section
class GpuNodes:
    """Hosts with GPUs; one process a host, which has all of them.

    Attributes:
      type: of GPU.
      per_node: GPUs of a host.
      nodes: hosts.
      fewest_nodes: the job may also start, or go on, with as few as this, where the platform can choose; 0: all.
    """

    kind: Literal["gpu"] = "gpu"
    type: Literal["A100", "A100-80GB", "H100", "H200", "B200", "L4"]
    per_node: Annotated[int, Field(ge=1, le=16)] = 8
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    fewest_nodes: Annotated[int, Field(ge=0)] = 0


@section
class CpuNodes:
    """Hosts without accelerators; one process a host.

    Attributes:
      nodes: hosts; `launch/local.sh` starts as many processes on this machine.
      fewest_nodes: the job may also start, or go on, with as few as this, where the platform can choose; 0: all.
    """

    kind: Literal["cpu"] = "cpu"
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    fewest_nodes: Annotated[int, Field(ge=0)] = 0


@section
class SlurmConfig:
    """What only Slurm knows.

    Attributes:
      time_limit: of one start, as --time takes it.
      options: further options of sbatch, such as --partition=gpus or --account=lab.
    """

    time_limit: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] = "24:00:00"
    options: tuple[Annotated[str, Field(pattern=r"^--")], ...] = ()


@section
class GoogleConfig:
    """Where Google's TPU VMs and clusters are.

    Attributes:
      project: its id.
      zone: such as us-east5-a.
      cluster: of GKE.
      namespace: in the cluster.
      storage_account: the cluster's service account that may read and write the bucket.
    """

    project: str = ""
    zone: Annotated[str, Field(pattern=r"^([a-z]+-[a-z]+\d+-[a-z])?$")] = ""
    cluster: str = ""
    namespace: str = "default"
    storage_account: str = "default"


@section
class SkyPilotConfig:
    """What only SkyPilot knows.

    Attributes:
      infra: where it may run, such as gcp/us-east5 or aws; "*": anywhere.
      disk_gb: of each host.
    """

    infra: str = "*"
    disk_gb: Annotated[int, Field(ge=50, le=65536)] = 256


Accelerator = Annotated[TpuSlices | GpuNodes | CpuNodes, Field(discriminator="kind")]


@section
class LaunchConfig:
    """A job on some platform.

    Attributes:
      name: of the job and of all that is created for it.
      command: what follows `jaxwiz` on every host: a stage, its config, overrides.
      accelerator: the hosts.
      spot: take hosts that may be taken back at any time, where the platform has such.
      retries: how often the job is started again after it was preempted (exit code 42), hung (43), failed or lost a
        host (1 and others); a wrong config (2) and SIGINT (130) end it.
      grace_s: seconds between the notice of an end and the end, in which training saves its state.
      setup: shell commands that install jaxwiz on a bare host, in the checkout; images have done this.
      source: the git repository that a bare host clones.
      image: the container image, where the platform runs containers.
      bucket: gs:// or s3:// URL that hosts in a cloud mount as `runs/`; clusters share a file system instead.
      environment: variables of every process, such as LIBTPU_INIT_ARGS, XLA_FLAGS or NCCL_SOCKET_IFNAME; no secrets.
      slurm: see there.
      google: see there.
      skypilot: see there.
      ray_address: of the Ray cluster, "auto" or http://HEAD:8265 for jobs.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,37}[a-z0-9]$")]
    command: Annotated[tuple[str, ...], AfterValidator(_require_command)]
    accelerator: Accelerator
    spot: bool = False
    retries: Annotated[int, Field(ge=0, le=1000)] = 10
    grace_s: Annotated[int, Field(ge=1, le=3600)] = 120
    setup: tuple[str, ...] = ()
    source: str = ""
    image: str = ""
    bucket: Annotated[str, Field(pattern=r"^((gs|s3)://[a-z0-9][a-z0-9._-]*[a-z0-9])?$")] = ""
    environment: Annotated[dict[str, str], AfterValidator(_require_environment)] = dataclasses.field(
        default_factory=dict
    )
    slurm: SlurmConfig = SlurmConfig()
    google: GoogleConfig = GoogleConfig()
    skypilot: SkyPilotConfig = SkyPilotConfig()
    ray_address: Annotated[str, Field(pattern=r"^(auto|[\w.-]+:\d+|https?://\S+)$")] = "auto"

    def __post_init__(self) -> None:
        accelerator = self.accelerator
        if isinstance(accelerator, TpuSlices):
            return
        if accelerator.fewest_nodes > accelerator.nodes:
            raise ValueError(
                f"accelerator.fewest_nodes = {accelerator.fewest_nodes} is more than nodes = {accelerator.nodes}; "
                "lower it"
            )
