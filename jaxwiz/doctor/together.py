"""What hosts can only find out together: do their clocks differ, do they reach each other, see the same folder.

Every process has to call these functions, in the same order; what is exchanged goes through the watchers, so it works
where the devices do not.
"""

import json
import os
import secrets
import socket
import statistics
import time

from etils import epath

from jaxwiz.doctor.host import file_system, try_folder
from jaxwiz.sharding.launch import find_launch
from jaxwiz.sharding.processes import Processes

_ROUNDS = 5
_CONNECT_TIMEOUT_S = 10.0


def clock_skew(processes: Processes) -> float:
    """Returns the seconds that this host's clock is ahead of the middle one (of two: the earlier).

    All processes read their clocks when the same message reaches them, give or take the network's latency; the best of
    a few rounds counts.
    """
    found = []
    for _ in range(_ROUNDS):
        processes.gather("now")
        told = processes.gather(repr(time.time()))
        times = [float(text) for text in told]
        found.append(times[processes.index] - statistics.median_low(times))
    return min(found, key=abs)


def reach_next(processes: Processes) -> str:
    """Returns "ok" if this process can open a connection to a free port of the next one, else the fault."""
    if processes.count == 1:
        return "alone"
    with socket.create_server(("", 0)) as server:
        addresses = processes.gather(json.dumps([_own_address(), server.getsockname()[1]]))
        following = (processes.index + 1) % processes.count
        host, port = json.loads(addresses[following])
        try:
            socket.create_connection((host, port), _CONNECT_TIMEOUT_S).close()
            found = "ok"
        except OSError as error:
            found = f"failed: process {following} at {host}:{port}: {error.strerror or error}"
        processes.gather("tried")  # the servers stay open until all have
    return found


def _own_address() -> str:
    """Returns the address of this host on the network on which process 0 is."""
    launch = find_launch(os.environ)
    assert launch is not None  # there are others
    host, _, port = launch.coordinator.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((host, int(port)))  # sends nothing, but chooses a route
        return way.getsockname()[0]


def check_folder(processes: Processes, folder: epath.Path) -> str:
    """Returns "ok, TYPE" if all processes can use the folder and see the same one, else what this one finds wrong.

    Args:
      processes: of the job.
      folder: where results will go.
    """
    token = processes.of_first(secrets.token_hex(4))
    fault = try_folder(folder, f"{token}-{processes.index}")
    mark = folder / f".doctor-{token}"
    if processes.is_first and not fault:
        mark.write_text(token)
    processes.gather("marked")
    if not fault and not mark.exists():
        fault = "failed: it is not the folder that process 0 sees"
    processes.gather("seen")
    if processes.is_first:
        mark.unlink(missing_ok=True)
    return fault or f"ok, {file_system(folder)}"
