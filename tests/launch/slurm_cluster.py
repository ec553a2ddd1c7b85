"""A real Slurm of two virtual nodes on this machine, in a folder of its own: munged, slurmctld and two slurmd.

Daemons stay in the foreground, so that each is started and ended by its pid. They run in mount namespaces of their own,
where /etc/hosts knows n1 and n2, as the name service of a cluster would.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "unshare")
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=20
MaxJobCount=50
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def reason_to_skip() -> str:
    """Returns why there can be no Slurm here, or an empty text."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        return f"{', '.join(missing)}: not installed; apt-get install slurm-wlm munge"
    if os.getuid() != 0:
        return "slurmctld and slurmd need root"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "no mount namespaces here, which the names of the nodes need"
    return ""


class SlurmCluster:
    """Two nodes, n1 and n2, of one core each.

    Attributes:
      environ: for sbatch, squeue, scancel and scontrol.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "spool-n1", "spool-n2", "munge"):
            (folder / name).mkdir(parents=True)
        (folder / "munge").chmod(0o700)
        folder.chmod(0o755)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (folder / "hosts").write_text(f"{Path('/etc/hosts').read_text()}\n127.0.0.1 n1 n2\n")
        ports = _free_ports(3)
        nodes = "".join(
            f"NodeName=n{number} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1 State=UNKNOWN\n"
            for number, port in zip((1, 2), ports[1:], strict=True)
        )
        config = folder / "slurm.conf"
        config.write_text(nodes + CONFIG.format(folder=folder, controller=ports[0]))
        self.environ = {**os.environ, "SLURM_CONF": str(config), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        try:
            self._start(
                *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
                *(f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log"),
                *(f"--seed-file={folder}/munge/seed", "--num-threads=2"),
            )
            self._wait_until(lambda: (folder / "munge.socket").exists(), "munged does not listen")
            self._start("slurmctld", "-D", "-f", str(config))
            self._start("slurmd", "-D", "-N", "n1", "-f", str(config))
            self._start("slurmd", "-D", "-N", "n2", "-f", str(config))
            self._wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], "no idle nodes")
        except BaseException:
            self.stop()
            raise

    def ask(self, *command: str) -> str:
        """Returns what a client program of Slurm prints, its errors too."""
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr

    def state(self, job: str) -> dict[str, str]:
        """Returns the fields of `scontrol show job`."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in shown)

    def stop(self) -> None:
        """Ends the daemons, the last one first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *command: str) -> None:
        inside = 'mount --bind "$0" /etc/hosts && exec "$@"'
        log = open(self._folder / f"{command[0]}-{len(self._daemons)}.out", "wb")  # noqa: SIM115 - the daemon's
        self._daemons.append(
            subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", inside, str(self._folder / "hosts"), *command],
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )

    def _wait_until(self, condition: "object", complaint: str) -> None:
        assert callable(condition)
        give_up_at = time.monotonic() + 60
        while not condition():
            logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in self._logs())
            assert all(daemon.poll() is None for daemon in self._daemons), f"a daemon ended\n{logs}"
            assert time.monotonic() < give_up_at, f"{complaint}\n{self.ask('sinfo', '-R')}\n{logs}"
            time.sleep(0.3)

    def _logs(self) -> list[Path]:
        return sorted([*self._folder.glob("*.log"), *self._folder.glob("*.out"), *self._folder.glob("munge/log")])


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
