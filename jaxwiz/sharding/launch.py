"""How this process was started together with others: what a launcher or scheduler says in the environment.

Looked for in this order; the first that is found counts, and its name is told when a run starts:

    explicit settings   JAXWIZ_COORDINATOR=host:port JAXWIZ_PROCESSES=n JAXWIZ_PROCESS_ID=k, as `launch/local.sh` sets
    GKE TPU             TPU_WORKER_HOSTNAMES, TPU_WORKER_ID; slices by MEGASCALE_*
    Slurm               the variables of a job step, that is, of a program that srun started
    Open MPI            4 and 5
    GKE JobSet          JOB_COMPLETION_INDEX, and JOBSET_NAME, REPLICATED_JOB_NAME, NNODES as the manifest sets them
    Cloud TPU           the metadata server of a TPU VM

These are facts of a launch and no settings of a run: no config key can be given in the environment. Nothing here
imports JAX, whose own detection covers less (no Open MPI 5; Kubernetes only with a client library and its rights) and
gives a process one GPU under Slurm even where it has the whole host.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from jaxwiz.files import UserError

DEFAULT_PORT = 8482
_FIRST_DYNAMIC_PORT, _DYNAMIC_PORTS = 61440, 4096  # the upper end, where systems seldom give ports to clients


class LaunchError(UserError):
    """A launch that is described halfway or in contradiction; names the variable."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """The place of this process in a job.

    Attributes:
      source: what said so, for people.
      coordinator: "host:port" at which process 0 meets the others.
      count: processes of the job.
      index: of this process, from 0.
      local_device_ids: devices of this host that are this process's own; None: all that it sees.
    """

    source: str
    coordinator: str
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise LaunchError(
                f"{self.source}: process {self.index} of {self.count}; processes are numbered 0 to {self.count - 1}, "
                "correct the launcher's settings"
            )


def find_launch(environ: Mapping[str, str]) -> Launch | None:
    """Returns how this process was launched, None if it is alone and nothing says otherwise.

    Args:
      environ: the process's environment.

    Raises:
      LaunchError: a variable is missing beside others of its kind, or is no number.
    """
    for find in (_explicit, _gke_tpu, _slurm, _open_mpi, _jobset, _cloud_tpu):
        launch = find(environ)
        if launch is not None:
            return launch
    return None


def _explicit(environ: Mapping[str, str]) -> Launch | None:
    names = ("JAXWIZ_COORDINATOR", "JAXWIZ_PROCESSES", "JAXWIZ_PROCESS_ID")
    missing = [name for name in names if not environ.get(name)]
    if len(missing) == len(names):
        return None
    if missing:
        raise LaunchError(f"{', '.join(missing)}: not set; {', '.join(names)} belong together, set all or none of them")
    coordinator = environ[names[0]]
    if not re.fullmatch(r"\S+:\d+", coordinator):
        raise LaunchError(f"{names[0]} = {coordinator!r}: give the host of process 0 and a free port, host:port")
    return Launch("explicit settings", coordinator, _number(environ, names[1]), _number(environ, names[2]))


def _gke_tpu(environ: Mapping[str, str]) -> Launch | None:
    if "TPU_WORKER_HOSTNAMES" not in environ or "TPU_WORKER_ID" not in environ:
        return None
    hosts = environ["TPU_WORKER_HOSTNAMES"].split(",")
    return _of_slices("GKE TPU", hosts, _number(environ, "TPU_WORKER_ID"), environ)


def _of_slices(source: str, hosts: list[str], index_in_slice: int, slices: Mapping[str, str]) -> Launch:
    """Returns the launch of a TPU host; `slices` may hold MEGASCALE_* for a job of several slices."""
    count, number = 1, 0
    if slices.get("MEGASCALE_NUM_SLICES"):
        count, number = _number(slices, "MEGASCALE_NUM_SLICES"), _number(slices, "MEGASCALE_SLICE_ID")
        source = f"{source}, {count} slices"
    first = (slices.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return Launch(source, f"{first}:{DEFAULT_PORT}", count * len(hosts), number * len(hosts) + index_in_slice)


def _slurm(environ: Mapping[str, str]) -> Launch | None:
    if "SLURM_PROCID" not in environ or "SLURM_STEP_NODELIST" not in environ:
        return None  # an allocation's own shell or batch script: a single process
    port = _FIRST_DYNAMIC_PORT + _number(environ, "SLURM_JOB_ID") % _DYNAMIC_PORTS
    count = _number(environ, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS")
    tasks = _slurm_counts(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    node = int(environ.get("SLURM_NODEID", "0"))
    here = tasks[node] if node < len(tasks) else 1
    return Launch(
        f"Slurm job {environ['SLURM_JOB_ID']}",
        f"{first_slurm_host(environ['SLURM_STEP_NODELIST'])}:{port}",
        count,
        _number(environ, "SLURM_PROCID"),
        _share_of_devices(environ, _number(environ, "SLURM_LOCALID"), here),
    )


def first_slurm_host(nodes: str) -> str:
    """Returns the first host of a Slurm node list such as "node[007-010,020],login1"."""
    matched = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if matched is None:
        raise LaunchError(f"SLURM_STEP_NODELIST = {nodes!r}: no host in it; start the run with srun")
    return "".join(part or "" for part in matched.groups())


def _slurm_counts(text: str) -> list[int]:
    """Returns the numbers of "2(x3),1": 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(number) for number, times in found for _ in range(int(times or 1))]


def _share_of_devices(environ: Mapping[str, str], place: int, processes_here: int) -> tuple[int, ...] | None:
    """Returns the GPU of a process that shares its host's GPUs with others; None where it sees its own ones only."""
    visible = environ.get("CUDA_VISIBLE_DEVICES") or environ.get("ROCR_VISIBLE_DEVICES")
    if processes_here == 1 or (visible is not None and visible.count(",") + 1 < processes_here):
        return None
    return (place,)


def _open_mpi(environ: Mapping[str, str]) -> Launch | None:
    if "OMPI_COMM_WORLD_RANK" not in environ:
        return None
    count, index = _number(environ, "OMPI_COMM_WORLD_SIZE"), _number(environ, "OMPI_COMM_WORLD_RANK")
    here, place = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE"), _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
    host, number = _open_mpi_head(environ)
    return Launch(
        "Open MPI",
        f"{'127.0.0.1' if here == count else host}:{_FIRST_DYNAMIC_PORT + number % _DYNAMIC_PORTS}",
        count,
        index,
        _share_of_devices(environ, place, here),
    )


def _open_mpi_head(environ: Mapping[str, str]) -> tuple[str, int]:
    """Returns the host of mpirun, where Open MPI puts process 0 unless told otherwise, and the job's number."""
    # Open MPI 4: "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"; the number is a multiple of 4096.
    uri = re.match(r"(\d+)\.\d+;tcp6?://\[?([^,:\]]+)", environ.get("OMPI_MCA_orte_hnp_uri", ""))
    if uri is not None:
        return uri[2], int(uri[1]) // 4096
    # Open MPI 5: "prterun-node01-12345@1", made of the host and mpirun's process id.
    namespace = re.match(r"(?:prterun|prte|prted)-(.+)-(\d+)@", environ.get("PMIX_NAMESPACE", ""))
    if namespace is not None:
        return namespace[1], int(namespace[2])
    raise LaunchError(
        "OMPI_COMM_WORLD_RANK is set, but neither OMPI_MCA_orte_hnp_uri nor PMIX_NAMESPACE names the host of mpirun; "
        "set JAXWIZ_COORDINATOR, JAXWIZ_PROCESSES and JAXWIZ_PROCESS_ID"
    )


def _jobset(environ: Mapping[str, str]) -> Launch | None:
    if "JOBSET_NAME" not in environ or "JOB_COMPLETION_INDEX" not in environ:
        return None
    missing = [name for name in ("REPLICATED_JOB_NAME", "NNODES") if name not in environ]
    if missing:
        raise LaunchError(
            f"{', '.join(missing)}: not set, though JOBSET_NAME is; name the replicated job and the number of pods in "
            "the manifest"
        )
    name = environ["JOBSET_NAME"]
    first = f"{name}-{environ['REPLICATED_JOB_NAME']}-0-0.{name}"
    return Launch(
        f"GKE JobSet {name}",
        f"{first}:{DEFAULT_PORT}",
        _number(environ, "NNODES"),
        _number(environ, "JOB_COMPLETION_INDEX"),
    )


def _cloud_tpu(environ: Mapping[str, str]) -> Launch | None:
    if "TPU_SKIP_MDS_QUERY" in environ or not ("GCE_METADATA_IP" in environ or _tpu_chips_here()):
        return None
    server = environ.get("GCE_METADATA_IP", "metadata.google.internal")
    index, endpoints = _attribute(server, "agent-worker-number"), _attribute(server, "worker-network-endpoints")
    if index is None or endpoints is None:
        return None
    # Each endpoint is a host, or "name:id:address" in older pods.
    hosts = [endpoint.split(":")[-1] for endpoint in endpoints.split(",")]
    stated = re.findall(r"^\s*(\w+)\s*:\s*'?([^'\n]*)'?\s*$", _attribute(server, "tpu-env") or "", re.MULTILINE)
    return _of_slices("Cloud TPU", hosts, int(index), {**dict(stated), **environ})


def _tpu_chips_here() -> bool:
    devices = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def _attribute(server: str, key: str) -> str | None:
    import urllib.request

    address = f"http://{server}/computeMetadata/v1/instance/attributes/{key}"
    request = urllib.request.Request(address, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:  # not a Google machine, or no such attribute
        return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.strip().isdecimal():
        raise LaunchError(f"{name} = {text!r}: must be a whole number, as the launcher sets it")
    return int(text)
