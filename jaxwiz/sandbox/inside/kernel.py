"""Calls into the Linux kernel that Python does not offer, by the C library or by number."""

import ctypes
import os
import platform

# Calls that have a wrapper in no C library, or not in every one; the numbers from 424 on are the same everywhere.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

_SET_DUMPABLE, _SET_SECCOMP, _CAPABILITY_DROP, _SET_NO_NEW_PRIVILEGES, _AMBIENT, _AMBIENT_CLEAR = 4, 22, 24, 38, 47, 4
_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER, _SECCOMP_FILTER = 1, 36, 2
_CAPABILITY_VERSION_3, _CAPABILITIES = 0x20080522, 41

_library = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> int:
    """Returns what a C library function returns that gives -1 and sets errno if it fails.

    Raises:
      OSError: it failed, or this system does not have it.
    """
    try:
        result = getattr(_library, function)(*arguments)
    except AttributeError:
        raise OSError(f"this system has no {function}") from None
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def system_call(number: int, *arguments: object) -> int:
    """Returns what a system call returns; integers among the arguments are passed as 64 bits.

    Raises:
      OSError: it failed.
    """
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return call("syscall", ctypes.c_long(number), *wide)


def prctl(option: int, *arguments: int) -> None:
    """Calls prctl with unsigned long arguments, the missing ones 0.

    Raises:
      OSError: it failed.
    """
    call("prctl", option, *(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mounts a file system; see mount(2).

    Raises:
      OSError: it failed.
    """
    encoded = [text if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    call("mount", *encoded[:3], ctypes.c_ulong(flags), encoded[3])


def pivot_to(folder: str) -> None:
    """Makes `folder`, a mount point, the root of this mount namespace, and unmounts the old root.

    Raises:
      OSError: it failed.
    """
    os.chdir(folder)
    system_call(_PIVOT_ROOT[platform.machine()], b".", b".")
    detach(".")
    os.chdir("/")


def detach(path: str) -> None:
    """Unmounts what is mounted at `path`, also while it is in use.

    Raises:
      OSError: it failed.
    """
    call("umount2", os.fsencode(path), 2)


def drop_capabilities() -> None:
    """Gives up all capabilities of this process, and those that it could gain by running a file.

    Raises:
      OSError: it failed.
    """
    for capability in range(_CAPABILITIES + 1):
        try:
            prctl(_CAPABILITY_DROP, capability)
        except OSError:
            break  # this kernel knows no more, or we have no right to drop them, and then none to gain any
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    prctl(_AMBIENT, _AMBIENT_CLEAR)


def forbid_new_privileges() -> None:
    """Makes set-user-id files powerless for this process and its children, as landlock and seccomp ask."""
    prctl(_SET_NO_NEW_PRIVILEGES, 1)


def forbid_inspection() -> None:
    """Keeps other processes of the same user from tracing this one or reading its memory, and core dumps away."""
    prctl(_SET_DUMPABLE, 0)


def die_with_parent(signal_number: int) -> None:
    """Has the kernel send us a signal when our parent ends."""
    prctl(_PARENT_DEATH_SIGNAL, signal_number)


def adopt_orphans() -> None:
    """Makes the descendants whose parent has ended our children, so that we can end them."""
    prctl(_CHILD_SUBREAPER, 1)


class _FilterHeader(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


class FilterProgram:
    """A seccomp filter in memory that the kernel can read.

    Attributes:
      instructions: the assembled program, 8 bytes an instruction; may be changed until it is installed.
    """

    def __init__(self, instructions: bytes) -> None:
        self.instructions = ctypes.create_string_buffer(instructions, len(instructions))
        self._header = _FilterHeader(len(instructions) // 8, ctypes.addressof(self.instructions))
        self._arguments = [ctypes.c_ulong(n) for n in (_SECCOMP_FILTER, ctypes.addressof(self._header), 0, 0)]

    def install(self) -> None:
        """Puts this process under the filter, for good.

        Raises:
          OSError: it was refused.
        """
        call("prctl", _SET_SECCOMP, *self._arguments)
