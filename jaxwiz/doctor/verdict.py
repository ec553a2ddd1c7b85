"""What the reports of all hosts mean: who is the odd one out, and what to do. Reports in, text out; no JAX."""

import collections
import math
from collections.abc import Callable, Sequence

from jaxwiz.doctor.host import HostReport

MOST_SKEW_S = 1.0
_LIKE = "make this host like the others: "

# What has to be the same everywhere: name, how to read it, what to do where it differs.
_ALIKE: tuple[tuple[str, Callable[[HostReport], str], str], ...] = (
    ("driver", lambda report: report.driver, _LIKE + "install the same driver"),
    ("devices", lambda report: report.devices, _LIKE + "look for a device that has failed, or is taken by a process"),
    ("sees", lambda report: report.seen, "it has joined another job; start all hosts by the same launcher"),
    ("file system", lambda report: report.folder.partition("ok, ")[2], _LIKE + "mount the same bucket or share"),
    ("attention kernel", lambda report: report.attention.partition(",")[0], _LIKE + "install the same requirements"),
)

# What can fail on a host by itself: name, how to read it, what to do.
_SOUND: tuple[tuple[str, Callable[[HostReport], str], str], ...] = (
    ("driver", lambda report: report.driver, "restart the host, or take another one"),
    ("folder", lambda report: report.folder, "mount the bucket or share there, with the right to write"),
    ("ports", lambda report: report.ports, "open all ports between the hosts in the firewall"),
    ("collective", lambda report: report.collective, "take another host: its links corrupt data"),
    ("attention", lambda report: report.attention, "take another version of JAX, or set compute.attention = 'xla'"),
)


def faults(
    reports: Sequence[HostReport], min_free_gib: float = 0.0, processes: int | None = None, devices: int | None = None
) -> list[str]:
    """Returns a line for each fault: process, host, what is wrong, what to do; none if all is well.

    Args:
      reports: of all processes.
      min_free_gib: that the folder's disk has to have.
      processes: how many there should be; None: nobody said.
      devices: how many each should have; None: nobody said.
    """
    lines = []
    if processes is not None and len(reports) != processes:
        lines.append(f"the job has {len(reports)} process(es), the spec {processes}; start one on every host")
    majority = {name: _usual([read(report) for report in reports]) for name, read, _ in _ALIKE}
    packages = sorted({name for report in reports for name in report.versions})
    versions = {name: _usual([report.versions.get(name, "absent") for report in reports]) for name in packages}
    for report in reports:
        found = []
        for name, usual in versions.items():
            if report.versions.get(name, "absent") != usual:
                own = report.versions.get(name, "absent")
                found.append(f"{name} is {own}, elsewhere {usual}; {_LIKE}install the same requirements")
        for name, read, remedy in _SOUND:
            if read(report).startswith("failed"):
                found.append(f"{name} {read(report)}; {remedy}")
        for name, read, remedy in _ALIKE:
            own = read(report)
            if own != majority[name] and not own.startswith("failed") and own:
                found.append(f"{name}: {own}, elsewhere {majority[name]}; {remedy}")
        if abs(report.clock_s) > MOST_SKEW_S:
            found.append(f"its clock is off by {report.clock_s:+.1f} s; start its NTP client")
        if report.free_gib < min_free_gib:
            found.append(f"{report.free_gib:.1f} GiB are free, {min_free_gib:g} needed; remove old runs")
        if devices is not None and report.devices != "unknown" and int(report.devices.split(" x ")[0]) != devices:
            found.append(f"it has {report.devices}, the spec says {devices}; is a device taken, or the spec wrong?")
        lines += [f"process {report.process} ({report.host}): {text}" for text in found]
    return lines


def _usual(values: Sequence[str]) -> str:
    """Returns the most frequent value; of equally frequent ones the first, that is, process 0's."""
    return collections.Counter(values).most_common(1)[0][0]


def line(report: HostReport) -> str:
    """Returns a host's line."""
    parts = [
        f"process {report.process}",
        report.host,
        f"{report.devices}, {report.memory_gib:.1f} GiB each",
        f"jax {report.versions.get('jax', 'absent')}",
        f"driver {report.driver}",
        f"clock {report.clock_s * 1e3:+.0f} ms",
        f"{report.free_gib:.0f} GiB free" if math.isfinite(report.free_gib) else "a bucket",
        f"folder {report.folder}",
        f"ports {report.ports}",
        f"sees {report.seen}",
        f"all-reduce {report.collective}",
        f"attention {report.attention}",
    ]
    return " | ".join(parts)
