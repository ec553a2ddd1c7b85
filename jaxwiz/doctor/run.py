"""The doctor's round: every process examines its host, then all of them what lies between; process 0 tells.

What works without devices comes first and is told first: where the devices' runtime then hangs, as it does when a host
of a TPU slice is missing, the lines above the notice show which one is odd.
"""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from etils import epath

from jaxwiz.doctor.host import HostReport, look_at_host
from jaxwiz.doctor.together import check_folder, clock_skew, reach_next
from jaxwiz.doctor.verdict import faults, line
from jaxwiz.files import UserError
from jaxwiz.sharding.processes import Processes, current

T = TypeVar("T")


class DoctorError(UserError):
    """A part of the examination that does not come to an end."""

    exit_code = 1


def examine(
    processes: Processes,
    folder: epath.Path,
    min_free_gib: float,
    timeout_s: float,
    expected: tuple[int, int | None] | None = None,
) -> bool:
    """Returns whether all hosts are sound and alike, after process 0 has printed a line for each and every fault.

    Args:
      processes: of the job, joined.
      folder: where results will go.
      min_free_gib: that its disk has to have.
      timeout_s: for each part.
      expected: processes of the job and devices of each, as a launch spec says; None for either: anything.
    """
    report = look_at_host(processes.index, folder)
    with _at_most(timeout_s, "folder and network"):
        report.clock_s = clock_skew(processes)
        report.ports = reach_next(processes)
        report.folder = check_folder(processes, folder)
    early = faults(_gathered(processes, report), min_free_gib)
    if processes.is_first:
        for fault in early:
            print(f"before the devices: {fault}", flush=True)

    from jaxwiz.doctor import devices

    with _at_most(timeout_s, "start of the devices (a host of the slice may be missing)"):
        devices.look_at_devices(report)
    _fill(processes, report, "attention", devices.check_attention, timeout_s)
    _fill(processes, report, "collective", devices.sum_over_all, timeout_s)
    reports = _gathered(processes, report)
    wanted, of_each = expected or (None, None)
    found = faults(reports, min_free_gib, wanted, of_each)
    if processes.is_first:
        for each in reports:
            print(line(each))
        for fault in found:
            print(f"FAULT {fault}")
        print(f"{len(reports)} process(es), {len(found)} fault(s)", flush=True)
    return not found


def _gathered(processes: Processes, report: HostReport) -> list[HostReport]:
    return [HostReport(**json.loads(text)) for text in processes.gather(json.dumps(dataclasses.asdict(report)))]


def _fill(processes: Processes, report: HostReport, name: str, check: Callable[[], str], timeout_s: float) -> None:
    """Notes what a check finds; a fault of JAX in it is a finding, not the end."""
    processes.gather(name)  # together, so that the clock of the timeout starts for all alike
    with _at_most(timeout_s, name):
        try:
            setattr(report, name, check())
        except Exception as error:
            setattr(report, name, f"failed: {type(error).__name__}: {str(error)[:300]}")


@contextmanager
def _at_most(timeout_s: float, part: str) -> Iterator[None]:
    """Ends the process, and the others with it, if the context takes longer: a runtime that hangs can't be stopped."""

    def give_up() -> None:
        error = DoctorError(f"{part}: no end after {timeout_s:g} s on this host; --timeout-s gives it longer")
        print(f"jaxwiz doctor: process {current().index}: {error}", file=sys.stderr, flush=True)
        current().fail(error, error.exit_code)
        os._exit(error.exit_code)

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
