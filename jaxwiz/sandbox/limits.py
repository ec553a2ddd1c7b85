"""What a program may use, and what became of it: the two values that the sandbox takes and gives."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
      timeout_s: wall-clock seconds from the program's start to its verdict.
      memory_bytes: address space.
      file_bytes: size of one file that it writes.
      open_files: file descriptors at a time.
      processes: processes and threads at a time; enforced only for programs that run as an unprivileged user.
    """

    timeout_s: float = 3.0
    memory_bytes: int = 4 << 30
    file_bytes: int = 16 << 20
    open_files: int = 64
    processes: int = 64


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one program.

    Attributes:
      status: "passed" (it ran to its end), "failed" (an exception, an exit or a crash), or "timed_out".
      detail: why, at most 500 bytes of UTF-8; empty if passed.
    """

    status: Literal["passed", "failed", "timed_out"]
    detail: str = ""
