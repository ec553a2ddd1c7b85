"""Runs untrusted programs: N sandbox servers, each driven by a thread, programs pulled as they are needed.

    programs = [("a", Program("assert 1 + 1 == 2")), ("b", Program("def f(x): return x", "assert f(2) == 2", ("f",)))]
    for key, outcome in run_programs(programs):
        print(key, outcome.status)

Programs are taken from an iterator and outcomes are handed out as they come, so memory stays flat for any number.
"""

import os
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

from jaxwiz.sandbox.client import Ladder, Server
from jaxwiz.sandbox.level import Level
from jaxwiz.sandbox.limits import Limits, Outcome
from jaxwiz.sandbox.program import Program

K = TypeVar("K")


def default_workers() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sandbox_level(unsafe_no_sandbox: bool = False) -> Level:
    """Returns how programs are confined here, found by starting a server; belongs in every result.

    Raises:
      SandboxError: neither L0 nor L1 holds, and `unsafe_no_sandbox` is not set; names what is missing.
    """
    with Server(0, Ladder(unsafe_no_sandbox)) as server:
        return server.level


def run_program(
    program: Program,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    unsafe_no_sandbox: bool = False,
) -> Outcome:
    """Returns what became of one program, run in a server of its own; for many, `run_programs` is faster.

    Raises:
      SandboxError: as `sandbox_level`.
    """
    with Server(0, Ladder(unsafe_no_sandbox)) as server:
        return server.run(program, limits)


def run_programs(
    programs: Iterable[tuple[K, Program]],
    limits: Limits = Limits(),  # noqa: B008 - frozen
    workers: int | None = None,
    unsafe_no_sandbox: bool = False,
) -> Generator[tuple[K, Outcome], None, None]:
    """Yields (key, outcome) of every program, in the order in which they end.

    Args:
      programs: (key, program) pairs, drawn by at most `workers` threads, one at a time.
      limits: what each program may use.
      workers: programs at a time; None: as many as there are cores.
      unsafe_no_sandbox: run them also where they can't be confined.

    Raises:
      SandboxError: as `sandbox_level`.
    """
    count = workers or default_workers()
    waiting, lock, stop = iter(programs), threading.Lock(), threading.Event()
    finished: queue.SimpleQueue[tuple[K, Outcome] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(4 * count)  # a slow consumer holds the workers back
    ladder = Ladder(unsafe_no_sandbox)

    def work(number: int) -> None:
        try:
            with Server(number, ladder) as server:
                while True:
                    room.acquire()
                    with lock:
                        item = None if stop.is_set() else next(waiting, None)
                    if item is None:
                        break
                    key, program = item
                    finished.put((key, server.run(program, limits)))
            finished.put(None)
        except BaseException as error:
            finished.put(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        at_work = count
        while at_work:
            result = finished.get()
            room.release()
            if result is None:
                at_work -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        stop.set()
        for _ in threads:
            room.release()
        for thread in threads:
            thread.join()
