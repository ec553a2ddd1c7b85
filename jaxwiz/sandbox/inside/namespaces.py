"""A small world of its own for a server and its programs: mounts, processes, network, IPC, host name, users.

In it there are the interpreter and its libraries, read-only; three devices; and one writable folder, a memory file
system limited in bytes and files. No other process, no network, no /proc. The caller goes on as process 1 in it, as a
user who owns nothing on the host if it was root, without capabilities; the process that it was waits outside.

Nothing is left on the host when it ends, however it ends: all mounts belong to the namespace.
"""

import os
import signal
import stat
from collections.abc import Iterable

from jaxwiz.sandbox.inside import kernel

BOX = "/box"
BOX_BYTES, BOX_FILES = 64 << 20, 4096

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_IPC = 0x20000, 0x4000000, 0x8000000
_NEW_USERS, _NEW_PROCESSES, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_NEW_WORLD = _NEW_MOUNTS | _NEW_HOST_NAME | _NEW_IPC | _NEW_PROCESSES | _NEW_NETWORK
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_EXECUTION, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 0x1000
_RECURSIVE, _PRIVATE = 0x4000, 0x40000
_KEPT = _NO_SETUID | _NO_DEVICES | _NO_EXECUTION  # what statvfs shows of these, in the same bits, may not be lifted
_MOUNT_POINTS = ("/tmp", "/var/tmp", "/mnt", "/srv", "/home")  # any folder will do: it is hidden in our namespace only


def enter(readable: Iterable[str], hidden: Iterable[str], packages: Iterable[str], user: int) -> int | None:
    """Returns as process 1 of a new world, with a descriptor of its /proc that nothing is mounted at any more.

    Args:
      readable: files and folders to show, at their own paths; what does not exist is left out.
      hidden: folders in them to show empty.
      packages: folders to show although they may lie in hidden ones.
      user: whom to become if we are root.

    Returns:
      the descriptor, or None where /proc can't be mounted.

    Raises:
      OSError: the kernel, or whoever set up this container, allows no namespaces.
    """
    was_root = _unshare()
    inner = os.fork()
    if inner:
        os.closerange(3, 1024)  # so that the harness sees when the inner process has ended
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with_parent(signal.SIGKILL)
    kernel.mount(None, "/", None, _RECURSIVE | _PRIVATE)
    processes = _open_processes()
    _build_root(readable, hidden, packages)
    os.umask(0o077)
    if was_root:
        become(user)
        kernel.die_with_parent(signal.SIGKILL)  # lost with the change of user
    kernel.drop_capabilities()
    return processes


def become(user: int) -> None:
    """Changes to another user and group, for good.

    Raises:
      OSError: not allowed.
    """
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _unshare() -> bool:
    """Leaves the host's namespaces, and says whether it was root who did, without a user namespace."""
    if os.geteuid() == 0:
        try:
            kernel.call("unshare", _NEW_WORLD)
            return True
        except OSError:
            pass  # root without capabilities, in a container: like any other user
    user, group = os.geteuid(), os.getegid()
    kernel.call("unshare", _NEW_WORLD | _NEW_USERS)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return False


def _open_processes() -> int | None:
    """Returns a descriptor of this namespace's /proc, which no path leads to; None: it can't be mounted."""
    point = next(filter(os.path.isdir, _MOUNT_POINTS), "/")
    try:
        kernel.mount("proc", point, "proc", _NO_SETUID | _NO_DEVICES | _NO_EXECUTION)
    except OSError:
        return None
    processes = os.open(point, os.O_PATH | os.O_DIRECTORY)
    kernel.detach(point)
    return processes


def _build_root(readable: Iterable[str], hidden: Iterable[str], packages: Iterable[str]) -> None:
    """Replaces the root by one that holds `readable`, without what is in `hidden`, `packages` and BOX."""
    point = next(filter(os.path.isdir, _MOUNT_POINTS), "/")
    links, sources = {}, {}
    packages, hidden = set(packages), [path for path in hidden if os.path.isdir(path)]
    for path in [*readable, *packages]:
        if os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.exists(path):
            sources[path] = os.open(path, os.O_PATH)  # before the new root hides it
    kernel.mount("tmpfs", point, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    for path, target in links.items():
        os.makedirs(os.path.dirname(point + path), exist_ok=True)
        os.symlink(target, point + path)
    for path, source in sources.items():
        if path not in packages:
            _show(source, point + path, is_device=path.startswith("/dev/"))
    for path in hidden:
        if os.path.isdir(point + path):
            kernel.mount("tmpfs", point + path, "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    for path, source in sources.items():
        if path in packages:
            _show(source, point + path, is_device=False)
        os.close(source)
    box = point + BOX
    os.mkdir(box)
    options = f"size={BOX_BYTES},nr_inodes={BOX_FILES},mode=1777"
    kernel.mount("tmpfs", box, "tmpfs", _NO_SETUID | _NO_DEVICES | _NO_EXECUTION, options)
    kernel.pivot_to(point)
    kernel.mount(None, "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES)


def _show(source: int, target: str, is_device: bool) -> None:
    """Makes an open file or folder appear at `target`, read-only unless it is a device."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.mount(f"/proc/self/fd/{source}", target, None, _BIND | _RECURSIVE)
    flags = _REMOUNT | _BIND | _NO_SETUID | (0 if is_device else _READ_ONLY | _NO_DEVICES)
    kernel.mount(None, target, None, flags | (os.statvfs(target).f_flag & _KEPT))
