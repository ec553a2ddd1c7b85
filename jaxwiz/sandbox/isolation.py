"""What keeps programs away from everything else: namespaces, an unprivileged user, and a fence for signals.

    process namespace   programs see and signal only each other, and all of them die with the server
    network namespace   no interface is up: nothing to connect to
    memory file system  programs' folders lie on a small one of their own, so they cannot fill the disk
    unprivileged user   if the server is root: programs run as a user that owns nothing
    signal scope        landlock's, for machines without the others: signals reach only the program's own processes

Each layer is tried, and `isolate` returns those that hold; a container or an old kernel may lack any of them. Not
covered yet: reading the host's world-readable files, and system calls.

Runs in the server's clean process: standard library only, nothing from jaxwiz.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Callable

_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_PROCESSES, _NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MOUNT_NOSUID, _MOUNT_NODEV, _MOUNT_BIND, _MOUNT_RECURSIVE, _MOUNT_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER, _NO_NEW_PRIVILEGES = 1, 36, 38
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _LANDLOCK_SCOPE_SIGNAL = 444, 446, 2  # the calls' numbers hold on every machine

# 65520 to 65533 are ids that no Linux distribution assigns. One per server, because the limit on processes counts all
# that a user has: a fork bomb in one program must not stop an honest one beside it from starting a thread.
_FIRST_USER, _USERS = 65520, 14


def isolate(box_root: str, server: int) -> tuple[list[str], int | None]:
    """Returns the layers that hold, and the user id that owns programs' folders (None: ours).

    Where process namespaces are allowed, the caller goes on as process 1 of a new one; the process that it was waits
    outside and ends with it.

    Args:
      box_root: folder, mode 0711, below which programs get their own folders.
      server: number of this server among those at work.
    """
    layers = []
    if _tried(_unshare):
        _enter_namespaces()
        layers += ["process namespace", "network namespace"]
        with contextlib.suppress(OSError):
            _mount("none", "/", None, _MOUNT_RECURSIVE | _MOUNT_PRIVATE)
            if os.getuid() == 0:
                _open_way_to([sys.prefix, sys.base_prefix, *sys.path, box_root])
            _mount("tmpfs", box_root, "tmpfs", _MOUNT_NOSUID | _MOUNT_NODEV, "size=128m,nr_inodes=4096,mode=711")
            layers.append("memory file system")
    else:
        with contextlib.suppress(OSError):
            _call("prctl", _CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans come to us, so that we can end them
    user = _FIRST_USER + server % _USERS
    unprivileged = os.getuid() == 0 and _works_as(user, box_root)
    if unprivileged:
        layers.append("unprivileged user")
    if _tried(_scope_signals):
        layers.append("signal scope")
    return layers, user if unprivileged else None


def give_up_rights(layers: list[str], user: int | None) -> None:
    """Makes the calling process, which is about to be a program, one without rights, for good.

    Args:
      layers: those that `isolate` found to hold.
      user: the user to become; None: stay.
    """
    if user is not None:
        _become(user)
    if "signal scope" in layers:
        _scope_signals()


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _scope_signals() -> None:
    """Lets this process and its descendants signal nobody but themselves."""
    rules = struct.pack("QQQ", 0, 0, _LANDLOCK_SCOPE_SIGNAL)  # no rights to files or network handled, one scope
    ruleset = _call("syscall", _LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("syscall", _LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _unshare() -> None:
    """Leaves the host's namespaces; the next process that we start is process 1 of a new one."""
    uid, gid = os.getuid(), os.getgid()
    flags = _NEW_MOUNTS | _NEW_IPC | _NEW_PROCESSES | _NEW_NETWORK
    _call("unshare", flags if uid == 0 else flags | _NEW_USER)
    if uid != 0:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)


def _enter_namespaces() -> None:
    """Returns as process 1 of new namespaces; the old process stays outside, waiting for this one."""
    _unshare()
    inner = os.fork()
    if inner:
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _call("prctl", _PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _tried(action: Callable[[], object]) -> bool:
    """Says whether `action` goes without an error, tried in a fork, so that half of it can't be left done."""
    probe = os.fork()
    if probe == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(probe, 0)[1] == 0


def _open_way_to(paths: list[str]) -> None:
    """Makes `paths` reachable for every user, in our mount namespace only.

    An interpreter below /root can't be read by an unprivileged user. Over each closed folder on the way, a memory file
    system is laid that holds nothing but the wanted paths; all else in that folder is thereby hidden from programs.
    """
    behind: dict[str, list[str]] = {}
    for path in sorted({os.path.realpath(path) for path in paths if os.path.isdir(path)}):
        parts = path.split("/")
        ancestors = ["/".join(parts[:end]) for end in range(2, len(parts))]
        closed = next((folder for folder in ancestors if not os.stat(folder).st_mode & 0o001), None)
        if closed is not None:
            behind.setdefault(closed, []).append(path)
    for closed, wanted in behind.items():
        handles = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in wanted}
        _mount("tmpfs", closed, "tmpfs", _MOUNT_NOSUID | _MOUNT_NODEV, "size=1m,mode=755")
        for path, handle in handles.items():
            os.makedirs(path, exist_ok=True)
            _mount(f"/proc/self/fd/{handle}", path, None, _MOUNT_BIND | _MOUNT_RECURSIVE)
            os.close(handle)


def _works_as(user: int, box_root: str) -> bool:
    """Says whether a program run as `user` could import the standard library and use a folder: tried, not reasoned."""
    box = os.path.join(box_root, "probe")
    os.mkdir(box, 0o700)
    os.chown(box, user, user)

    def use_them() -> None:
        _become(user)
        os.chdir(box)
        for folder in filter(os.path.isdir, sys.path):
            os.listdir(folder)
        with open(os.__file__, "rb"):
            pass

    works = _tried(use_them)
    os.rmdir(box)
    return works


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [text if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _call("mount", *encoded[:3], ctypes.c_ulong(flags), encoded[3])


def _call(function: str, *arguments: object) -> int:
    """Calls a C library function that returns -1 and sets errno if it fails.

    Raises:
      OSError: it failed, or this system does not have it.
    """
    try:
        result = getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments)
    except AttributeError:
        raise OSError(f"this system has no {function}") from None
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result
