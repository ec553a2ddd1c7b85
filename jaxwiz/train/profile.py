"""A trace of some steps, for TensorBoard's profile page and for Perfetto, and how long the devices were busy in it.

    jaxwiz train CONFIG.yaml --profile          the 4th to 8th step of this run
    jaxwiz train CONFIG.yaml --profile 100:109  the steps of these numbers

The files lie below `<out>/tensorboard/plugins/profile/`: `*.xplane.pb` for TensorBoard (with its profile plug-in) and
`perfetto_trace.json.gz` for ui.perfetto.dev. Process 0 traces its own devices; the others do the same work.

The loop drains the devices before the first traced step and after the last. So the shares are those of the time between
the first and the last operation, and a device that waits for the host between steps shows.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxwiz.files import UserError

STEP_NAME = "train"
_WARM_UP_STEPS, _TRACED_STEPS = 3, 5

Interval = tuple[float, float]


def steps_to_trace(asked: str | None, first: int, last: int) -> range:
    """Returns the numbers of the steps to trace, none where `asked` is None.

    Args:
      asked: "FIRST:LAST", both included; "": the 4th to 8th step of this run, or as many of them as there are.
      first: the first step of this run, from 1.
      last: its last one.

    Raises:
      UserError: not of that form, or steps that this run does not do.
    """
    if asked is None:
        return range(0)
    if asked == "":
        begin = max(first, min(first + _WARM_UP_STEPS, last - _TRACED_STEPS + 1))
        return range(begin, min(begin + _TRACED_STEPS, last + 1))
    matched = re.fullmatch(r"(\d+):(\d+)", asked)
    if matched is None or int(matched[1]) > int(matched[2]):
        raise UserError(f"--profile {asked}: give the first and the last step to trace, as in 4:8")
    if int(matched[1]) < first or int(matched[2]) > last:
        raise UserError(f"--profile {asked}: this run does steps {first} to {last}; choose some of them")
    return range(int(matched[1]), int(matched[2]) + 1)


def annotated(step: int) -> jax.profiler.StepTraceAnnotation:
    """Returns the context in which a step is dispatched, so that traces show it by its number."""
    return jax.profiler.StepTraceAnnotation(STEP_NAME, step_num=step)


def start_trace(folder: Path) -> None:
    """Begins to trace; `folder` is what TensorBoard is given as its log folder."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # a line for every Python call would slow the host, and tells little of the loop
    jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)


def stop_trace(folder: Path) -> str:
    """Ends the trace that `start_trace` began, and returns where it lies and how busy devices were, for the user."""
    jax.profiler.stop_trace()
    trace = max((folder / "plugins" / "profile").iterdir(), key=lambda path: path.name)
    (path,) = trace.glob("*.xplane.pb")
    spent = device_time(jax.profiler.ProfileData.from_file(str(path)))
    if spent is None:
        return f"profile in {trace}: no operation of a device is in it"
    waiting = "" if spent.waiting is None else f", and waited for the host {spent.waiting:.1%}"
    return f"profile in {trace}: devices were busy {spent.busy:.1%} of the time{waiting}"


@dataclasses.dataclass(frozen=True)
class DeviceTime:
    """How devices spent the time between their first and last operation, the mean over devices.

    Attributes:
      busy: the part, 0 to 1, in which some operation ran.
      waiting: the part between programs, in which a device had nothing to do since the host had not given it anything
        yet; None where the trace does not tell programs apart. What is left of the time lies within programs.
    """

    busy: float
    waiting: float | None


def device_time(profile: jax.profiler.ProfileData) -> DeviceTime | None:
    """Returns how the devices of a trace spent their time; None: no device's operation is in it.

    The CPU's operations run on threads of the host; all CPU devices of a process count as one.
    """
    devices = [_operations(plane) for plane in profile.planes if plane.name.startswith("/device:")]
    hosts = [_host_operations(plane) for plane in profile.planes if plane.name == "/host:CPU"]
    traced = [found for found in devices if found[0]] or [found for found in hosts if found[0]]
    if not traced:
        return None
    busy = [_covered_share(operations) for operations, _ in traced]
    waiting = [1 - _covered_share(programs) for _, programs in traced if programs]
    return DeviceTime(sum(busy) / len(busy), sum(waiting) / len(waiting) if waiting else None)


def _operations(plane: Any) -> tuple[list[Interval], list[Interval]]:
    """Returns the operations and the programs of an accelerator: TPUs name lines for both, GPUs list their streams."""
    intervals: dict[bool, list[Interval]] = {True: [], False: []}
    for line in plane.lines:
        if line.name in ("XLA Ops", "XLA Modules") or line.name.startswith("Stream"):
            intervals[line.name != "XLA Modules"] += [(event.start_ns, event.end_ns) for event in line.events]
    return intervals[True], intervals[False]


def _host_operations(plane: Any) -> tuple[list[Interval], list[Interval]]:
    """Returns the operations of CPU devices, and the programs that they belong to, from first to last operation."""
    operations: list[Interval] = []
    programs: dict[Any, Interval] = {}
    for event in (event for line in plane.lines for event in line.events):
        stats = dict(event.stats)
        if "hlo_op" in stats:
            operations.append((event.start_ns, event.end_ns))
            begin, end = programs.get(stats.get("run_id"), operations[-1])
            programs[stats.get("run_id")] = min(begin, event.start_ns), max(end, event.end_ns)
    return operations, list(programs.values())


def _covered_share(intervals: Iterable[Interval]) -> float:
    """Returns the part of the time between the first begin and the last end that lies in at least one interval."""
    merged = list(_merged(sorted(intervals)))
    span = merged[-1][1] - merged[0][0]
    return sum(end - begin for begin, end in merged) / span if span else 1.0


def _merged(intervals: list[Interval]) -> Iterator[Interval]:
    begin, end = intervals[0]
    for other_begin, other_end in intervals[1:]:
        if other_begin > end:
            yield begin, end
            begin, end = other_begin, other_end
        end = max(end, other_end)
    yield begin, end
