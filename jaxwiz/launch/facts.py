"""What follows from a launch spec: hosts, the names that each platform has for them, the command with its overrides.

Names of TPUs: `https://cloud.google.com/tpu/docs/` (accelerator types and runtime versions of the TPU VM API) and
`https://cloud.google.com/kubernetes-engine/docs/concepts/tpus` (node labels), read in November 2026.
"""

import dataclasses
from typing import Any

from jaxwiz.files import UserError
from jaxwiz.launch.config import CpuNodes, GpuNodes, LaunchConfig, TpuSlices
from jaxwiz.plan.chips import Topology
from jaxwiz.stages import STAGES


class SpecError(UserError):
    """A launch spec that cannot be launched so; names field, value, rule and remedy."""


@dataclasses.dataclass(frozen=True)
class TpuNames:
    """What one generation of TPUs is called.

    Attributes:
      api: prefix of the TPU VM API's accelerator type.
      per_chip: what the number after that prefix counts: 2 TensorCores a chip, or chips.
      runtime: the TPU VM's software version.
      gke: value of the node label cloud.google.com/gke-tpu-accelerator.
      ray: accelerator type of Ray.
      one_host: most chips that a host alone may have.
    """

    api: str
    per_chip: int
    runtime: str
    gke: str
    ray: str
    one_host: int


TPUS = {
    "v4": TpuNames("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", "TPU-V4", 4),
    "v5e": TpuNames("v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", "TPU-V5LITEPOD", 8),
    "v5p": TpuNames("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", "TPU-V5P", 4),
    "v6e": TpuNames("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", "TPU-V6E", 8),
}
GKE_GPUS = {
    "A100": "nvidia-tesla-a100",
    "A100-80GB": "nvidia-a100-80gb",
    "H100": "nvidia-h100-80gb",
    "H200": "nvidia-h200-141gb",
    "B200": "nvidia-b200",
    "L4": "nvidia-l4",
}


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The hosts of a job, each with one process.

    Attributes:
      count: of all slices together.
      fewest: with which the job may start or go on.
      slices: groups of hosts; 1 for GPUs and CPUs.
      devices: accelerators of each host; 0 for CPUs.
      tpu_type: the TPU VM API's accelerator type, or empty.
      gke_type: GKE's node label of the accelerator, or empty.
      topology: shape of a TPU slice such as 4x4x4, or empty.
      names: of the generation of TPUs, if any.
    """

    count: int
    fewest: int
    slices: int = 1
    devices: int = 0
    tpu_type: str = ""
    gke_type: str = ""
    topology: str = ""
    names: TpuNames | None = None


def hosts_of(spec: LaunchConfig) -> Hosts:
    """Returns the hosts that a spec asks for."""
    accelerator = spec.accelerator
    if isinstance(accelerator, CpuNodes):
        return Hosts(accelerator.nodes, accelerator.fewest_nodes or accelerator.nodes)
    if isinstance(accelerator, GpuNodes):
        fewest = accelerator.fewest_nodes or accelerator.nodes
        return Hosts(accelerator.nodes, fewest, devices=accelerator.per_node, gke_type=GKE_GPUS[accelerator.type])
    topology = Topology.parse(accelerator.topology)
    names = TPUS[topology.chip.name]
    per_host = min(topology.chips, names.one_host) if topology.chips <= names.one_host else 4
    hosts = topology.chips // per_host
    return Hosts(
        count=hosts * accelerator.slices,
        fewest=hosts * accelerator.slices,
        slices=accelerator.slices,
        devices=per_host,
        tpu_type=f"{names.api}-{topology.chips * names.per_chip}",
        gke_type=names.gke,
        topology="x".join(map(str, topology.shape)),
        names=names,
    )


def command_of(spec: LaunchConfig) -> tuple[str, ...]:
    """Returns what follows `jaxwiz`; training on TPU slices is told their number, so that it stands in one place only.

    Raises:
      SpecError: the stage is one process's, but there are several hosts.
    """
    stage = STAGES.get(spec.command[0])
    hosts = hosts_of(spec)
    by_ray = any(word in ("engine=ray", "engine.kind=ray") for word in spec.command)
    if stage is not None and not stage.by_many and hosts.count > 1 and not by_ray:
        raise SpecError(
            f"command = {' '.join(spec.command)!r}: {stage.name} is run by one process, but the accelerator has "
            f"{hosts.count} hosts; give one host, or add engine=ray and submit it as a Ray job"
        )
    if stage is not None and stage.name == "train" and isinstance(spec.accelerator, TpuSlices):
        return (*spec.command, f"mesh.slice={hosts.slices}")
    return spec.command


def ray_scaling(spec: LaunchConfig) -> dict[str, Any]:
    """Returns the arguments of Ray Train's ScalingConfig: a worker a host, with all of its devices; (fewest, most)."""
    hosts = hosts_of(spec)
    # Ray counts what is free in the cluster, so it cannot tell how many hosts without accelerators are left.
    workers = (hosts.fewest, hosts.count) if hosts.devices and hosts.fewest < hosts.count else hosts.count
    if hosts.names is not None:
        tpu = {"use_tpu": True, "topology": hosts.topology, "accelerator_type": hosts.names.ray}
        return {"num_workers": workers, "resources_per_worker": {"TPU": hosts.devices}, **tpu}
    devices = {"GPU": hosts.devices} if hosts.devices else {"CPU": 1}
    on = {"use_gpu": hosts.devices > 0, "resources_per_worker": devices, "placement_strategy": "STRICT_SPREAD"}
    return {"num_workers": workers, **on}


def checked_for(spec: LaunchConfig, platform: str) -> None:
    """Returns if a spec has what a platform needs.

    Raises:
      SpecError: everything that it lacks.
    """
    tpu = spec.accelerator.kind == "tpu"
    google = spec.google
    asked = {
        "slurm": [(tpu, "accelerator.kind = 'tpu': Slurm has GPU or CPU nodes; use launch/tpu_vm.sh or launch/gke")],
        "tpu-vm": [
            (not tpu, f"accelerator.kind = {spec.accelerator.kind!r}: must be 'tpu' for TPU VMs; use another script"),
            (not google.project, "google.project = '': needed to create TPU VMs; give the project's id"),
            (not google.zone, "google.zone = '': needed to create TPU VMs; give one such as us-east5-a"),
            (not spec.source, "source = '': a bare host needs a repository to clone; give its URL"),
            (not spec.setup, "setup = (): a bare host needs commands that install jaxwiz; give them"),
        ],
        "gke": [
            (spec.accelerator.kind == "cpu", "accelerator.kind = 'cpu': launch/gke has manifests for TPUs and GPUs"),
            (not spec.image, "image = '': pods need a container image; build one of launch/docker and name it"),
            (not google.cluster, "google.cluster = '': name the cluster"),
            (spec.bucket.startswith("s3"), f"bucket = {spec.bucket!r}: GKE mounts gs:// buckets; use one"),
        ],
        "skypilot": [
            (not spec.setup, "setup = (): a bare host needs commands that install jaxwiz; give them"),
            (
                tpu and hosts_of(spec).slices > 1,
                "accelerator.slices: SkyPilot joins no slices; use 1, or another script",
            ),
        ],
    }
    faults = [message for wrong, message in asked.get(platform, []) if wrong]
    if faults:
        raise SpecError(
            "\n".join([f"{spec.name} cannot be launched by {platform}:", *(f"  {fault}" for fault in faults)])
        )
