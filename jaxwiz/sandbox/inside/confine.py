"""The layers that confine a program, put together: resource limits, landlock and seccomp in the namespaces' world.

    L0  namespaces, landlock, seccomp, resource limits
    L1  landlock, seccomp, resource limits
    L2  resource limits only: not a sandbox

Whether a layer holds is tried, in a process that then attempts what it must not be able to do.
"""

import _socket  # and `_thread`: what `socket` and `threading` would add, every fork of the server would pay for
import _thread
import contextlib
import errno
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxwiz.sandbox.inside import kernel, landlock, namespaces, seccomp

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
TIME_ZONES = ("/usr/share/zoneinfo", "/etc/localtime")
LOADER = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
FOLDER_PREFIX = "jaxwiz-sandbox-"
RULES_AT = 50  # descriptors of the two landlock rule sets, above all others of the server

# 65520 to 65533 are ids that no Linux distribution assigns. One per server, because the limit on processes counts all
# that a user has.
_FIRST_USER, _USERS = 65520, 14
_PROBE_LIMITS = {"cpu_s": 5, "file_bytes": 1 << 20, "open_files": 64, "memory_bytes": 4 << 30, "processes": 64}
_MORE_THREADS = 512  # than the user has at the start: room for what else that user starts while programs run


class LayerError(Exception):
    """A layer that this level needs does not hold here; str() says which and why."""


class Confinement:
    """What a server has set up for its programs.

    Attributes:
      box: the one folder that programs may write to.
      processes: descriptor of a /proc that shows our programs, or None.
      layers: what holds.
      alone: whether every process that we can see but ourselves is a program's.
    """

    def __init__(self, box: str, processes: int | None, layers: Sequence[str], alone: bool) -> None:
        self.box, self.processes, self.layers, self.alone = box, processes, list(layers), alone
        self._rules: dict[bool, int] = {}
        self._filter: seccomp.Filter | None = None
        self._most_threads: int | None = None

    def count_threads_from(self, present: int) -> None:
        """Has the limit on threads of a program leave room for `present` others of the same user."""
        self._most_threads = present

    def add_landlock(self, readable: Sequence[str]) -> None:
        """Makes the rule sets; raises OSError where there is no landlock."""
        for with_box in (False, True):
            writable = [*DEVICES, self.box] if with_box else DEVICES
            rules = landlock.make_rules([*readable, *DEVICES], writable, packages_too=self.alone)
            self._rules[with_box] = os.dup2(rules, RULES_AT + with_box, inheritable=False)
            os.close(rules)
        self.layers.append("landlock")

    def add_seccomp(self) -> None:
        """Says that programs are filtered; raises OSError on an unknown architecture."""
        self._filter = seccomp.Filter()
        self.layers.append("seccomp")

    def enter(self, limits: Mapping[str, Any], with_box: bool = True) -> None:
        """Confines the calling process, a fork of the server, for good.

        Args:
          limits: the fields of `limits.Limits` but its time, and "cpu_s" unless that is kept otherwise.
          with_box: whether it may use the box.
        """
        os.setsid()
        os.chdir(self.box if with_box else "/")
        _limit_resources(limits, self._most_threads)
        if self._rules:
            landlock.enter(self._rules[with_box])
            for rules in self._rules.values():
                os.close(rules)
        if self._filter:
            self._filter.install()


def set_up(level: str, packages: Sequence[str], folder: str, server: int, without: Sequence[str]) -> Confinement:
    """Returns the confinement of a level, in force for this process as far as it must be.

    Args:
      level: "L0", "L1" or "L2".
      packages: folders of packages that programs may import.
      folder: where to make the box if there are no namespaces.
      server: number of this server among those at work.
      without: layers to treat as missing, for tests.

    Raises:
      LayerError: a layer does not hold.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the kernel ends programs rather than the harness
    readable = [os.path.dirname(os.__file__), f"{sys.base_prefix}/lib", *LIBRARIES, *TIME_ZONES, *LOADER]
    user = _FIRST_USER + server % _USERS
    if level == "L0":
        if "namespaces" in without:
            raise LayerError("namespaces: switched off")
        try:
            hidden = landlock.package_folders(readable)
            processes = namespaces.enter([*readable, *DEVICES], hidden, packages, user)
        except OSError as error:
            raise LayerError(f"namespaces: {error}") from error
        confinement = Confinement(namespaces.BOX, processes, ["namespaces"], alone=True)
        confinement.count_threads_from(0)
    else:
        confinement = _set_up_beside_others(readable, folder, user)
    if level == "L2":
        with contextlib.suppress(OSError):
            kernel.forbid_inspection()
    else:
        kernel.forbid_new_privileges()
        kernel.forbid_inspection()
        for layer, add in (
            ("landlock", lambda: confinement.add_landlock([*readable, *packages])),
            ("seccomp", confinement.add_seccomp),
        ):
            if layer in without:
                raise LayerError(f"{layer}: switched off")
            try:
                add()
            except OSError as error:
                raise LayerError(f"{layer}: {error}") from error
        _try(confinement)
    confinement.layers.append("resource limits")
    os.environ.update(HOME=confinement.box, TMPDIR=confinement.box)
    return confinement


def _set_up_beside_others(readable: Sequence[str], folder: str, user: int) -> Confinement:
    """Returns a confinement without namespaces: the box is a folder on disk, the user another one where we are root."""
    layers = []
    is_root = os.geteuid() == 0
    box = os.path.join(folder, FOLDER_PREFIX + os.urandom(8).hex())
    os.mkdir(box, 0o700)
    if is_root and _works_as(user, readable[0], box):
        os.chown(box, user, user)
        namespaces.become(user)
        layers.append("unprivileged user")
    for wish in (kernel.adopt_orphans, kernel.drop_capabilities):
        with contextlib.suppress(OSError):
            wish()
    processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY) if os.path.isdir("/proc/self") else None
    confinement = Confinement(box, processes, layers, alone=False)
    if "unprivileged user" in layers:
        confinement.count_threads_from(0)
    elif not is_root:
        confinement.count_threads_from(_threads_of_user() + _MORE_THREADS)
    return confinement


def _works_as(user: int, library: str, box: str) -> bool:
    """Says whether programs could read the standard library and use the box as another user: tried, not reasoned."""
    probe = os.fork()
    if probe == 0:
        try:
            os.chown(box, user, user)
            namespaces.become(user)
            os.chdir(box)
            os.listdir(library)
            with open(os.__file__, "rb"):
                os._exit(0)
        finally:
            os._exit(1)
    works = os.waitpid(probe, 0)[1] == 0
    if not works:
        os.chown(box, 0, 0)
    return works


def _threads_of_user() -> int:
    """Returns how many threads our user has now."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(f"{entry.path}/task"))
    return count


def _limit_resources(limits: Mapping[str, Any], present_threads: int | None) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_AS: limits["memory_bytes"],
    }
    if "cpu_s" in limits:
        wanted[resource.RLIMIT_CPU] = int(limits["cpu_s"]) + 1
    if present_threads is not None:
        wanted[resource.RLIMIT_NPROC] = limits["processes"] + present_threads
    for kind, value in wanted.items():
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):  # above the hard limit, or unknown: macOS has no working RLIMIT_AS
            with contextlib.suppress(ValueError, OSError):
                hard = resource.getrlimit(kind)[1]
                resource.setrlimit(kind, (hard, hard))


def _try(confinement: Confinement) -> None:
    """Raises LayerError if a confined process can do what it must not, or can't do what honest programs do."""
    read, write = os.pipe()
    server = os.getpid()
    probe = os.fork()
    if probe == 0:
        try:
            confinement.enter(_PROBE_LIMITS)
            os.write(write, _first_fault(server).encode())
        except BaseException as error:
            os.write(write, f"confinement: {type(error).__name__}: {error}".encode()[:500])
        finally:
            os._exit(0)
    os.close(write)
    fault = os.read(read, 4096).decode()
    os.close(read)
    _, status = os.waitpid(probe, 0)
    if fault != "none":
        raise LayerError(fault or f"confinement: the probe ended with status {status}")


def _first_fault(server: int) -> str:
    """Returns what is wrong with the confinement of the calling process, "none" if nothing."""
    forbidden = {
        "landlock: listed /": lambda: os.listdir("/"),
        "landlock: opened /proc": lambda: os.open("/proc/self/status", os.O_RDONLY),
        "landlock: made a file outside": lambda: os.open("../escaped", os.O_CREAT | os.O_WRONLY),
        "seccomp: started a process": lambda: os.fork() or os._exit(0),
        "seccomp: made a socket": lambda: _socket.socket(_socket.AF_INET),
        "seccomp: signalled its server": lambda: os.kill(server, 0),
        "seccomp: changed a mode": lambda: os.chmod(".", 0o700),
    }
    for fault, attempt in forbidden.items():
        try:
            attempt()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.EROFS):
                return f"{fault.partition(':')[0]}: {error}"
        else:
            return fault
    with open("probe", "w") as file:
        file.write("honest")
    os.remove("probe")
    signal.raise_signal(signal.SIGCONT)
    started = _thread.allocate_lock()
    started.acquire()
    _thread.start_new_thread(started.release, ())
    started.acquire()
    return "none"
