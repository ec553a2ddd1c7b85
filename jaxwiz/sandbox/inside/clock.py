"""Time that a program is answerable for: not what a busy machine makes it wait, and longer where the machine is slow.

A limit of 3 s means 3 s on an idle machine of reference speed. Two things are measured:

    waiting   the kernel counts for each thread how long it was ready but had no core (schedstat); that is subtracted,
              so ten other programs on the same cores change no verdict, while one that sleeps still ends on time
    speed     the CPU time of a fixed loop against its time on the reference, at the start and again before any program
              is ended for its time; a limit is longer by that factor, never shorter

Where schedstat can't be read nothing is subtracted.
"""

import os
import time

# CPU seconds of one `_loop` on the reference: a core of an x86-64 server of about 2020, running Python 3.11, and a
# quarter on top, so that such machines, where published results come from, have a factor of exactly 1.
REFERENCE_S = 1.25e-3
_LOOP_STEPS = 20_000
_LOOPS = 3

MOST_WALL = 10  # times its limit, waiting included: nothing runs longer
MOST_CPU = 2  # times its limit, over all its threads


def machine_factor() -> float:
    """Returns how many times slower than the reference this machine computes now, at least 1.0; takes about 4 ms."""
    return max(1.0, min(_loop() for _ in range(_LOOPS)) / REFERENCE_S)


def _loop() -> float:
    """Returns the CPU seconds of a fixed piece of Python."""
    start = time.thread_time()
    counts: dict[int, int] = {}
    for number in range(_LOOP_STEPS):
        counts[number & 255] = counts.get(number & 255, 0) + number
    return time.thread_time() - start


def waited_s(processes: int | None, pid: int) -> float:
    """Returns how long a process, that is its thread that waited longest, was ready but had no core.

    Args:
      processes: descriptor of a /proc; None: 0.0 is returned.
      pid: its number there.
    """
    if processes is None:
        return 0.0
    try:
        tasks = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=processes)
    except OSError:
        return 0.0
    longest = 0.0
    try:
        for task in os.listdir(tasks):
            longest = max(longest, _waited(f"{task}/schedstat", tasks))
    except OSError:
        pass
    finally:
        os.close(tasks)
    return longest


def _waited(path: str, folder: int) -> float:
    try:
        file = os.open(path, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return 0.0  # ended, or a kernel without it
    try:
        return read_waited_s(file)
    finally:
        os.close(file)


def read_waited_s(schedstat: int | None) -> float:
    """Returns how long a thread was ready but had no core.

    Args:
      schedstat: descriptor of its schedstat file, at any position; None: 0.0 is returned.
    """
    if schedstat is None:
        return 0.0
    try:
        return int(os.pread(schedstat, 200, 0).split()[1]) * 1e-9  # CPU time, waiting time (ns), number of slices
    except (OSError, IndexError, ValueError):
        return 0.0


def open_schedstat(processes: int | None, pid: int) -> int | None:
    """Returns a descriptor for `read_waited_s` of a process's first thread, None where it can't be read."""
    if processes is None:
        return None
    try:
        return os.open(f"{pid}/schedstat", os.O_RDONLY, dir_fd=processes)
    except OSError:
        return None


def cpu_s(pid: int) -> float:
    """Returns the CPU time that a process of ours has used, 0.0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's name for that process's clock
    except OSError:
        return 0.0


class Deadline:
    """The end of a program's time.

    Args:
      limit_s: seconds that it is answerable for, on the reference.
      factor: how much slower this machine is, as far as known.
      processes: descriptor of a /proc, or None.
    """

    def __init__(self, limit_s: float, factor: float, processes: int | None) -> None:
        self._limit_s, self._factor, self._processes = limit_s, factor, processes
        self._start = time.monotonic()
        self._watched: list[tuple[int, float, float]] = []  # pid, CPU and waiting time that it had before

    def watch(self, pid: int, waited_before_s: float = 0.0) -> None:
        """Counts the time of a process from now on.

        Args:
          pid: its number.
          waited_before_s: what `waited_s` says of it now, 0.0 if it is new.
        """
        self._watched.append((pid, cpu_s(pid), waited_before_s))

    def remaining_s(self) -> float:
        """Returns for how long to wait before asking again; 0.0: the time is up."""
        wall_s = time.monotonic() - self._start
        limit_s = self._limit_s * self._factor
        if wall_s < limit_s:
            return limit_s - wall_s
        left_s = self._left_s(wall_s, limit_s)
        if left_s <= 0.0:
            self._factor = max(self._factor, machine_factor())
            left_s = self._left_s(wall_s, self._limit_s * self._factor)
        return max(left_s, 0.005) if left_s > 0.0 else 0.0

    def _left_s(self, wall_s: float, limit_s: float) -> float:
        if sum(cpu_s(pid) - before for pid, before, _ in self._watched) > MOST_CPU * limit_s:
            return 0.0
        waited = sum(waited_s(self._processes, pid) - before for pid, _, before in self._watched)
        return min(limit_s - (wall_s - waited), MOST_WALL * limit_s - wall_s)
