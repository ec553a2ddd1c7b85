"""What a program may use, and what became of it: the limits that the sandbox takes and the outcome that it gives."""

import dataclasses
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use; candidate and checker each.

    Attributes:
      timeout_s: seconds from the program's start to its verdict, on an idle machine of reference speed: time spent
        waiting for a core does not count, and on a slower machine a second is as much longer (see clock.py).
      memory_bytes: address space.
      file_bytes: size of one file that it writes.
      open_files: file descriptors at a time.
      processes: threads at a time.
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
      status: "passed" (it ran to its end), "failed", or "timed_out".
      detail: why, at most 500 bytes of UTF-8; empty if passed.
      reason: why, in a word: "assertion", "exception" (any other), "syntax", "memory" (MemoryError), "exit" (by itself,
        before its verdict), "crash" (by a signal), "not_plain_data" (a result that can't cross to the checker),
        "timeout", "sandbox" (broke its sandbox twice); empty if passed.
      forgeable: whether candidate and tests shared a process, so that a program written for it could forge the verdict.
      failure: what the checker reported, each at most 500 bytes; None: nothing.
      output: what the checker emitted.
    """

    status: Literal["passed", "failed", "timed_out"]
    detail: str = ""
    reason: str = ""
    forgeable: bool = False
    failure: Mapping[str, str] | None = None
    output: bytes = b""
