"""Every kind of launch, told by the environment that it makes; and those that are told halfway."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from jaxwiz.sharding.launch import Launch, LaunchError, find_launch, first_slurm_host

SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_NODELIST": "tpu[007-008,011],login1",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
GKE_TPU = {"TPU_WORKER_HOSTNAMES": "job-0-0.job,job-0-1.job", "TPU_WORKER_ID": "1"}
SLICES = {"MEGASCALE_COORDINATOR_ADDRESS": "job-0-0.job:8080", "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"}
JOBSET = {"JOBSET_NAME": "run", "REPLICATED_JOB_NAME": "gpus", "NNODES": "4", "JOB_COMPLETION_INDEX": "2"}
EXPLICIT = {"JAXWIZ_COORDINATOR": "10.0.0.1:1234", "JAXWIZ_PROCESSES": "3", "JAXWIZ_PROCESS_ID": "2"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (EXPLICIT, Launch("explicit settings", "10.0.0.1:1234", 3, 2)),
        (GKE_TPU, Launch("GKE TPU", "job-0-0.job:8482", 2, 1)),
        (GKE_TPU | SLICES, Launch("GKE TPU, 2 slices", "job-0-0.job:8482", 4, 3)),
        (SLURM, Launch("Slurm job 4099", "tpu007:61443", 6, 4)),
        (
            OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"},
            Launch("Open MPI", f"10.96.0.1:{61440 + 1531576320 // 4096 % 4096}", 4, 3, (1,)),
        ),
        (
            OPEN_MPI | {"PMIX_NAMESPACE": "prterun-node-01-12345@1"},
            Launch("Open MPI", f"node-01:{61440 + 12345 % 4096}", 4, 3, (1,)),
        ),
        (JOBSET, Launch("GKE JobSet run", "run-gpus-0-0.run:8482", 4, 2)),
        ({"HOME": "/root"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script, not srun
        (EXPLICIT | SLURM | GKE_TPU, Launch("explicit settings", "10.0.0.1:1234", 3, 2)),
        (GKE_TPU | JOBSET, Launch("GKE TPU", "job-0-0.job:8482", 2, 1)),
    ],
)
def test_a_launch_is_read_from_the_environment(environ: dict[str, str], expected: Launch | None) -> None:
    assert find_launch(environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"JAXWIZ_PROCESSES": "2"}, "JAXWIZ_COORDINATOR, JAXWIZ_PROCESS_ID: not set"),
        (EXPLICIT | {"JAXWIZ_COORDINATOR": "10.0.0.1"}, "JAXWIZ_COORDINATOR = '10.0.0.1': give the host"),
        (EXPLICIT | {"JAXWIZ_PROCESS_ID": "3"}, "process 3 of 3; processes are numbered 0 to 2"),
        (EXPLICIT | {"JAXWIZ_PROCESSES": "two"}, "JAXWIZ_PROCESSES = 'two': must be a whole number"),
        (OPEN_MPI, "neither OMPI_MCA_orte_hnp_uri nor PMIX_NAMESPACE"),
        ({"JOBSET_NAME": "run", "JOB_COMPLETION_INDEX": "0"}, "REPLICATED_JOB_NAME, NNODES: not set"),
        (GKE_TPU | {"MEGASCALE_NUM_SLICES": "2"}, "MEGASCALE_SLICE_ID = ''"),
    ],
)
def test_a_launch_that_is_told_halfway_is_an_error(environ: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        find_launch(environ)


@pytest.mark.parametrize(
    ("visible", "tasks", "own"),
    [
        (None, "1(x4)", None),  # the whole host is one process's
        (None, "4", (2,)),
        ("0,1,2,3", "4", (2,)),
        ("2", "4", None),  # bound by Slurm: it sees nothing else
    ],
)
def test_processes_of_one_host_share_its_gpus(visible: str | None, tasks: str, own: tuple[int, ...] | None) -> None:
    environ = SLURM | {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": "0", "SLURM_LOCALID": "2"}
    if visible is not None:
        environ["CUDA_VISIBLE_DEVICES"] = visible
    launch = find_launch(environ)
    assert launch is not None and launch.local_device_ids == own


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-0015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("rack[1-2]-gpu,other", "rack1-gpu"),
    ],
)
def test_the_first_host_of_a_slurm_node_list(nodes: str, first: str) -> None:
    assert first_slurm_host(nodes) == first


class _Metadata(http.server.BaseHTTPRequestHandler):
    """A TPU VM's metadata server."""

    attributes: dict[str, str]

    def do_GET(self) -> None:
        text = self.attributes.get(self.path.rsplit("/", 1)[1])
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def metadata() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("endpoints", ["10.0.0.1,10.0.0.2", "w:1:10.0.0.1,w:2:10.0.0.2"])
def test_a_tpu_vm_asks_its_metadata_server(metadata: str, endpoints: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = {"agent-worker-number": "1", "worker-network-endpoints": endpoints}
    monkeypatch.setattr(_Metadata, "attributes", attributes, raising=False)
    assert find_launch({"GCE_METADATA_IP": metadata}) == Launch("Cloud TPU", "10.0.0.1:8482", 2, 1)
    attributes["tpu-env"] = (
        "ZONE: 'us-east5-a'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
        "MEGASCALE_COORDINATOR_ADDRESS: '10.0.9.1'\n"
    )
    assert find_launch({"GCE_METADATA_IP": metadata}) == Launch("Cloud TPU, 2 slices", "10.0.9.1:8482", 4, 3)


def test_a_google_machine_without_tpus_is_alone(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Metadata, "attributes", {}, raising=False)
    assert find_launch({"GCE_METADATA_IP": metadata}) is None
