"""What the sandbox takes: a program under test, and what judges it.

A candidate and its checker run in processes of their own, and only plain data crosses between them, so a candidate
can't reach its verdict. The checker's globals hold, besides `data` and the builtins:

    a proxy for each name of `calls`, called like the candidate's function:
        entry_point(*args, **kwargs) -> result
        entry_point.call(args, kwargs={}, timeout_s=None, want_arguments=False) -> result, or (result, args afterwards)
    report(**fields)   strings to hand out with the verdict (Outcome.failure); may be called often, the last of a name
                       holds, also when time runs out afterwards; each is cut to 500 bytes
    emit(data)         bytes to hand out with the verdict (Outcome.output), at most 48 MiB
    calls              the proxies by name

A proxy raises what the candidate raised, as the nearest builtin exception class, and TimeoutError where a call takes
longer than `timeout_s`. It ends the checker, with a failed verdict, where the candidate's process has ended or its
result is not plain data. The checker passes by running to its end and fails by an exception.

What is plain data, see inside/codec.py. Functions as arguments, and classes made by the candidate, can't cross: such
tests run in one process with the candidate, whose verdict a program written for it could forge.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Program:
    """A program under test and what judges it.

    Attributes:
      candidate: untrusted source, run in a process of its own.
      checker: trusted source, run in another; empty: the candidate passes by running to its own end.
      calls: names defined by the candidate that the checker may call.
      data: handed only to the checker, as its global `data`; trusted.
      timeout_s: in place of `Limits.timeout_s`; None: that.
    """

    candidate: str
    checker: str = ""
    calls: tuple[str, ...] = ()
    data: bytes = b""
    timeout_s: float | None = None
