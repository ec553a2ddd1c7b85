"""Which files a program may touch: a landlock rule set, made once by the server and entered by every program.

Readable: the standard library, system libraries and the packages named; not the other packages beside them, among which
a benchmark's own data may lie. Writable: one folder. Everything else, running any file included, is refused. Where the
kernel offers it (6.12), signals and abstract sockets reach only the program itself, and no TCP port can be used (6.7).
"""

import os
import stat
import struct
from collections.abc import Iterable, Iterator

from jaxwiz.sandbox.inside.kernel import (
    LANDLOCK_ADD_RULE,
    LANDLOCK_CREATE_RULESET,
    LANDLOCK_RESTRICT_SELF,
    system_call,
)

_VERSION_ASKED = 1
_WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_EXECUTE, _MAKE_CHARACTER_DEVICE, _MAKE_SOCKET, _MAKE_BLOCK_DEVICE = 1 << 0, 1 << 6, 1 << 9, 1 << 11
_NEVER = _EXECUTE | _MAKE_CHARACTER_DEVICE | _MAKE_SOCKET | _MAKE_BLOCK_DEVICE
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # number of file rights that a version knows; 16 from 5 on
_TCP_BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3

PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def version() -> int:
    """Returns the version of landlock's interface, 0 if this kernel has none or it is off."""
    try:
        return system_call(LANDLOCK_CREATE_RULESET, None, 0, _VERSION_ASKED)
    except OSError:
        return 0


def make_rules(readable: Iterable[str], writable: Iterable[str], packages_too: bool = False) -> int:
    """Returns a descriptor of a new rule set.

    Args:
      readable: files and folders; a folder named PACKAGE_FOLDERS in them or in a folder in them can only be listed.
      writable: files and folders.
      packages_too: do without that exception, where those folders are hidden otherwise; few rules are quicker to enter.

    Raises:
      OSError: no landlock here.
    """
    interface = version()
    if not interface:
        raise OSError("landlock: this kernel has none, or it is switched off")
    all_rights = (1 << _RIGHTS_BY_VERSION.get(interface, 16)) - 1
    # files; TCP from version 4 on; scopes from 6 on
    size = 24 if interface >= 6 else 16 if interface >= 4 else 8
    handled = struct.pack("=QQQ", all_rights, _TCP_BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS)[:size]
    rules = system_call(LANDLOCK_CREATE_RULESET, handled, size, 0)
    for folder in readable:
        for path, rights in _without_packages(folder, depth=0 if packages_too else 2):
            _add(rules, path, rights & all_rights)
    for path in writable:
        _add(rules, path, all_rights & ~_NEVER)
    return rules


def enter(rules: int) -> None:
    """Puts this thread, which must have given up new privileges, under a rule set, for good.

    Raises:
      OSError: it was refused.
    """
    system_call(LANDLOCK_RESTRICT_SELF, rules, 0)


def _without_packages(path: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yields (path, rights) so that `path` can be read, except for package folders at most `depth` levels down."""
    reading = _READ_FILE | _READ_FOLDER
    if not _holds_packages(path, depth):
        yield path, reading
        return
    yield path, _READ_FOLDER
    for entry in os.scandir(path):
        if entry.name not in PACKAGE_FOLDERS:
            yield from _without_packages(entry.path, depth - 1)


def package_folders(readable: Iterable[str]) -> list[str]:
    """Returns the package folders that lie in folders, or in a folder named python* in them."""
    found = []
    for folder in readable:
        inner = [f"{folder}/{name}" for name in _names(folder) if name.startswith("python")]
        found += [f"{parent}/{name}" for parent in (folder, *inner) for name in PACKAGE_FOLDERS]
    return [folder for folder in found if os.path.isdir(folder)]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _holds_packages(path: str, depth: int) -> bool:
    """Says whether a package folder lies in a folder, or in a folder named python* in it."""
    if depth == 0 or not os.path.isdir(path):
        return False
    names = _names(path)
    if any(name in PACKAGE_FOLDERS for name in names):
        return True
    return any(_holds_packages(f"{path}/{name}", depth - 1) for name in names if name.startswith("python"))


def _add(rules: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH)
    except OSError:
        return  # not there, or not for us
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _WRITE_FILE | _READ_FILE | _TRUNCATE
        if rights:
            system_call(LANDLOCK_ADD_RULE, rules, 1, struct.pack("=Qi", rights, target), 0)
    finally:
        os.close(target)
