"""The system calls that a program may make: an allow-list, assembled to a filter for x86-64 and aarch64.

All else fails with EPERM, and clone3 with ENOSYS, so that the C library falls back to clone, whose flags a filter can
see. What is left out: starting processes, sockets, tracing, other processes' memory, signals to others, file modes,
owners and times, memory files, io_uring, bpf, keyrings, shared memory, namespaces, mounts, clocks to set.

Numbers beyond the table, x86-64's second set of them included, are refused, and so is another architecture by name.
"""

import os
import platform
import struct

from jaxwiz.sandbox.inside import kernel

# name: number on x86-64, number on aarch64; None: that architecture does not have it.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "poll": (7, None),
    "ppoll": (271, 73),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "brk": (12, 214),
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    # files, by descriptor
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "fstat": (5, 80),
    "fstatfs": (138, 44),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "fchdir": (81, 50),
    # files, by path: landlock says which
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "truncate": (76, 45),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "umask": (95, 166),
    # pipes and waiting; sockets only in pairs, see _rules
    "pipe": (22, None),
    "pipe2": (293, 59),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "select": (23, None),
    "pselect6": (270, 72),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "getsockopt": (55, 209),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    # memory
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "msync": (26, 227),
    "mincore": (27, 232),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # threads and signals within the process
    "exit": (60, 93),
    "exit_group": (231, 94),
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getscheduler": (145, 120),
    "sched_getparam": (143, 121),
    "getpriority": (140, 141),
    "getcpu": (309, 168),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "pause": (34, None),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "restart_syscall": (219, 128),
    # clocks, to read and to wait for
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_getres": (229, 114),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "times": (100, 153),
    # what the process is
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getrandom": (318, 278),
}

# Allowed for some arguments only; see _rules.
RESTRICTED: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "socketpair": (53, 199),
    "sendto": (44, 206),
}

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, NOT_PERMITTED, NOT_THERE = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # errno EPERM, ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_THREAD = 0x10000
_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
_NAME_OF_THREAD = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_HARMLESS_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS (isatty), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_UNIX, _STREAM, _TYPE_BITS = 1, 1, 0xF
_SOME_PID = 0x5AFEC0DE  # larger than any, and no other constant
_ALLOWED, _REFUSED = (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, NOT_PERMITTED)

Instruction = tuple[int, int, int, int]  # code, instructions to skip if true, if false, constant


def assemble(pid: int, machine: str | None = None) -> bytes:
    """Returns the filter for the process `pid`, 8 bytes an instruction.

    Raises:
      OSError: the table does not have this machine's architecture.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(f"no system-call table for {machine}, only for {' and '.join(ARCHITECTURES)}")
    column, audit = ARCHITECTURES[machine]
    actions: dict[int, list[Instruction]] = {RESTRICTED[name][column]: rule for name, rule in _rules(pid).items()}
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            actions[number] = [_ALLOWED]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_search(_segments(actions)),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class Filter:
    """The filter of a machine, ready for any process: quick to install after a fork."""

    def __init__(self) -> None:
        template = assemble(_SOME_PID)
        pid = struct.pack("=I", _SOME_PID)
        self._places = [place for place in range(4, len(template), 8) if template[place : place + 4] == pid]
        self._program = kernel.FilterProgram(template)

    def install(self) -> None:
        """Puts the calling process under the filter, for good.

        Raises:
          OSError: the kernel refuses.
        """
        for place in self._places:
            struct.pack_into("=I", self._program.instructions, place, os.getpid())
        self._program.install()


def _segments(actions: dict[int, list[Instruction]]) -> list[tuple[int, list[Instruction]]]:
    """Returns (first number, what to do from there on) in ascending order, from 0 on."""
    segments: list[tuple[int, list[Instruction]]] = []
    for number in range(max(actions) + 2):
        action = actions.get(number, [_REFUSED])
        if not segments or (segments[-1][1] is not action and segments[-1][1] != action):
            segments.append((number, action))
    return segments


def _search(segments: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Returns a binary search: short for each number, since the kernel runs it for all of them when it is installed."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below = _search(segments[:middle])
    return [(_AT_LEAST, len(below), 0, segments[middle][0]), *below, *_search(segments[middle:])]


def _rules(pid: int) -> dict[str, list[Instruction]]:
    """Returns, by name of a restricted call, instructions that end in a verdict."""
    own_only = _if_argument(0, pid)
    return {
        "clone3": [(_RETURN, 0, 0, NOT_THERE)],
        "clone": [  # threads, not processes
            (_LOAD, 0, 0, _ARGUMENTS),
            (_ANY_BIT, 2, 0, _NAMESPACES),
            (_ANY_BIT, 0, 1, _THREAD),
            (_RETURN, 0, 0, ALLOW),
            (_RETURN, 0, 0, NOT_PERMITTED),
        ],
        "kill": own_only,
        "tgkill": own_only,
        "prlimit64": _if_argument(0, 0),  # 0: the caller
        "prctl": _if_argument(0, *_NAME_OF_THREAD),
        "ioctl": _if_argument(1, *_HARMLESS_IOCTLS),
        "socketpair": [  # datagram sockets, even in pairs, can be sent to a name
            (_LOAD, 0, 0, _ARGUMENTS),
            (_EQUAL, 0, 4, _UNIX),
            (_LOAD, 0, 0, _ARGUMENTS + 8),
            (_MASK, 0, 0, _TYPE_BITS),
            (_EQUAL, 0, 1, _STREAM),
            (_RETURN, 0, 0, ALLOW),
            (_RETURN, 0, 0, NOT_PERMITTED),
        ],
        "sendto": [  # without a name to send to: both halves of the pointer are 0
            (_LOAD, 0, 0, _ARGUMENTS + 32),
            (_EQUAL, 0, 3, 0),
            (_LOAD, 0, 0, _ARGUMENTS + 36),
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, ALLOW),
            (_RETURN, 0, 0, NOT_PERMITTED),
        ],
    }


def _if_argument(position: int, *values: int) -> list[Instruction]:
    """Returns instructions that allow a call if the low half of one argument, all that counts of it, is in values."""
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * position),
        *tests,
        (_RETURN, 0, 0, NOT_PERMITTED),
        (_RETURN, 0, 0, ALLOW),
    ]
