"""The filters of both architectures, run by a small interpreter of the kernel's instructions, on any machine."""

import errno
import os
import platform
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxwiz.sandbox.inside import kernel, seccomp
from jaxwiz.sandbox.inside.seccomp import ALLOW, ALLOWED, ARCHITECTURES, KILL, NOT_PERMITTED, NOT_THERE, RESTRICTED

PID = 4321
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),  # aarch64 has the generic numbers
}
# By the kernel's own tables, so that a slip in ours can't hide: (x86-64, aarch64).
FORBIDDEN = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "setuid": (105, 146),
    "setresuid": (117, 147),
    "capset": (126, 91),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "inotify_init1": (294, 26),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
    "clock_settime": (227, 112),
    "seccomp": (317, 277),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "reboot": (169, 142),
    "timer_create": (222, 107),
    "acct": (163, 89),
    "syslog": (103, 116),
}
CLONE_THREAD = 0x3D0F00  # what the C library passes for a thread


def run(program: bytes, machine: str, number: int, arguments: Sequence[int] = ()) -> int:
    """Returns what a filter answers to a system call."""
    data = struct.pack("=iIQ6Q", number, ARCHITECTURES[machine][1], 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        code, if_true, if_false, constant = instructions[place]
        place += 1
        if code == 0x20:  # load a word of the data
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:  # and
            accumulator &= constant
        elif code == 0x06:  # return
            return constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[code]
            place += if_true if holds else if_false


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def program(machine: str) -> bytes:
    return seccomp.assemble(PID, machine)


def test_a_filter_is_short_and_ends_in_a_verdict_for_every_number(machine: str, program: bytes):
    assert len(program) // 8 < 4096, "the kernel's limit"
    for number in [*range(1024), 0x3FFFFFFF, 0x40000000, 0x40000001, 0x7FFFFFFF, -1]:
        assert run(program, machine, number) in (ALLOW, NOT_PERMITTED, NOT_THERE)


def test_exactly_the_table_is_allowed(machine: str, program: bytes):
    column = ARCHITECTURES[machine][0]
    allowed = {numbers[column] for numbers in ALLOWED.values()} - {None}
    restricted = {numbers[column] for numbers in RESTRICTED.values()}
    for number in set(range(1024)) - restricted:
        expected = ALLOW if number in allowed else NOT_PERMITTED
        assert run(program, machine, number, [1, 1]) == expected, number
    assert run(program, machine, 0x40000000 + 1) == NOT_PERMITTED, "x86-64's second set of numbers"


@pytest.mark.parametrize("name", FORBIDDEN)
def test_dangerous_calls_are_refused_with_any_arguments(name: str, machine: str, program: bytes):
    number = FORBIDDEN[name][ARCHITECTURES[machine][0]]
    if number is not None:
        for arguments in ([], [1], [PID], [CLONE_THREAD], [0, 0, 0, 0, 0, 0]):
            assert run(program, machine, number, arguments) == NOT_PERMITTED


def test_another_architecture_ends_the_process(machine: str, program: bytes):
    other = next(name for name in ARCHITECTURES if name != machine)
    assert run(program, other, 0) == KILL


# name, arguments, whether allowed
CASES = [
    ("clone", [CLONE_THREAD], True),
    ("clone", [17], False),  # a child process
    ("clone", [0x4111], False),  # vfork
    *(
        ("clone", [CLONE_THREAD | flag], False)
        for flag in (0x20000, 0x2000000, 0x10000000, 0x20000000, 0x40000000, 0x80)
    ),
    ("kill", [PID, 9], True),
    ("kill", [PID + 1, 9], False),
    ("kill", [0, 9], False),
    ("kill", [1, 9], False),
    ("kill", [2**64 - 1, 9], False),
    ("tgkill", [PID, 77, 9], True),
    ("tgkill", [PID + 1, 77, 9], False),
    ("prctl", [15], True),
    ("prctl", [16], True),
    ("prctl", [4, 1], False),  # dumpable
    ("prctl", [22, 2], False),  # seccomp
    ("prlimit64", [0, 7], True),
    ("prlimit64", [1, 7], False),
    ("ioctl", [0, 0x5401], True),
    ("ioctl", [0, 0x5451], True),
    ("ioctl", [0, 0x5412], False),  # types into a terminal
    ("socketpair", [1, 1], True),
    ("socketpair", [1, 1 | 0o2000000 | 0o4000], True),  # close-on-exec, non-blocking
    ("socketpair", [1, 2], False),  # a datagram socket could be sent to a name
    ("socketpair", [1, 5], False),
    ("socketpair", [2, 1], False),
    ("sendto", [3, 1, 1, 0, 0, 0], True),
    ("sendto", [3, 1, 1, 0, 0x7F0000001000, 110], False),
    ("sendto", [3, 1, 1, 0, 1 << 32, 110], False),
]


@pytest.mark.parametrize(("name", "arguments", "allowed"), CASES)
def test_restricted_calls_depend_on_their_arguments(
    name: str, arguments: list[int], allowed: bool, machine: str, program: bytes
):
    number = RESTRICTED[name][ARCHITECTURES[machine][0]]
    assert run(program, machine, number, arguments) == (ALLOW if allowed else NOT_PERMITTED)


def test_clone3_looks_like_an_old_kernel(machine: str, program: bytes):
    assert run(program, machine, RESTRICTED["clone3"][ARCHITECTURES[machine][0]]) == NOT_THERE
    assert NOT_THERE & 0xFFFF == errno.ENOSYS
    assert NOT_PERMITTED & 0xFFFF == errno.EPERM


def test_numbers_are_those_of_the_kernel_headers(machine: str):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no {header} here (package linux-libc-dev)")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", header.read_text(), re.MULTILINE))
    found.setdefault("newfstatat", found.get("fstatat", ""))
    column = ARCHITECTURES[machine][0]
    for name, numbers in {**ALLOWED, **RESTRICTED, **FORBIDDEN}.items():
        if name in found or numbers[column] is not None:
            expected = numbers[column]
            known = found.get(name)
            if known is None and name in FORBIDDEN:
                continue  # newer than these headers
            assert str(expected) == known, name


def test_an_unknown_architecture_is_refused_by_name():
    with pytest.raises(OSError, match="riscv64"):
        seccomp.assemble(PID, "riscv64")


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no table for this machine")
def test_a_ready_filter_is_that_of_the_process_that_installs_it():
    read, write = os.pipe()
    ready = seccomp.Filter()
    child = os.fork()
    if child == 0:
        try:
            kernel.forbid_new_privileges()
            ready.install()
            os.kill(os.getpid(), 0)
            try:
                os.kill(os.getppid(), 0)
            except PermissionError:
                os.write(write, b"held")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert os.read(read, 10) == b"held"
    os.close(read)
