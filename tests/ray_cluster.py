"""A real Ray cluster of two nodes on this machine, each a raylet with workers of its own."""

import os
import signal
from typing import Any


class TwoNodes:
    """A head node and a second one.

    Attributes:
      address: for `engine.address`.
    """

    def __init__(self, gpus: int = 0) -> None:
        """Starts both nodes.

        Args:
          gpus: that each node says it has; there need not be any.
        """
        from ray.cluster_utils import Cluster

        # Nodes are missed after a second instead of half a minute.
        config = {
            "health_check_initial_delay_ms": 500,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 2,
        }
        self._gpus = gpus
        head = {
            "num_cpus": 2,
            "num_gpus": gpus,
            "object_store_memory": 80 << 20,
            "include_dashboard": False,
            "_system_config": config,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second: Any = None
        self.address: str = self._cluster.address
        self.add_second()
        self._cluster.wait_for_nodes(60)

    def add_second(self) -> None:
        """Starts the second node, or a new one in its place."""
        self._second = self._cluster.add_node(num_cpus=2, num_gpus=self._gpus, object_store_memory=80 << 20)

    def kill_second(self) -> None:
        """Kills the second node's raylet, as a failing machine would; its workers end with it."""
        for process in self._second.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends every process of the cluster."""
        self._cluster.shutdown()
