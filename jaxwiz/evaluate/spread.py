"""Runs programs here or on the nodes of a cluster, confined alike everywhere, so that verdicts do not depend on where.

Each node runs programs on its own cores, in its own sandbox, by its own clock (time limits follow the speed of the
machine, see sandbox/limits.py). The journal is kept by the process that evaluates, never by nodes.
"""

import functools
from collections.abc import Iterable, Iterator

from jaxwiz.evaluate.config import EvaluateConfig
from jaxwiz.evaluate.score import Key, Runner
from jaxwiz.fanout import fan_out
from jaxwiz.sandbox import Level, Limits, Outcome, Program, SandboxError, run_programs, sandbox_level

PROGRAMS_PER_SHARD = 16
SHARDS_AHEAD = 7  # with the one under way 128 programs, so that a node of many cores never waits


def make_runner(config: EvaluateConfig, limits: Limits, sandbox: Level) -> Runner:
    """Returns what runs programs and yields what became of each, where the config says.

    Args:
      config: the engine, and how programs are run.
      limits: what each program may use.
      sandbox: how programs are confined here, and so must be on every node.
    """
    work = functools.partial(run_confined, sandbox, limits, config.workers, config.unsafe_no_sandbox)

    def run(programs: Iterable[tuple[Key, Program]]) -> Iterator[tuple[Key, Outcome]]:
        return fan_out(config.engine, work, programs, per_shard=PROGRAMS_PER_SHARD, ahead=SHARDS_AHEAD)

    return run


def run_confined(
    required: Level,
    limits: Limits,
    workers: int | None,
    unsafe_no_sandbox: bool,
    programs: Iterator[tuple[Key, Program]],
) -> Iterator[tuple[Key, Outcome]]:
    """Yields what became of each program, run on this machine if its sandbox is the required one.

    Raises:
      SandboxError: programs are confined differently here, better or worse.
    """
    found = sandbox_level(unsafe_no_sandbox)
    if (found.name, set(found.layers)) != (required.name, set(required.layers)):
        why = f" ({'; '.join(found.missing)})" if found.missing else ""
        raise SandboxError(
            f"sandbox level {found.name} with {', '.join(found.layers) or 'no layers'}{why}, but {required.name} with "
            f"{', '.join(required.layers) or 'no layers'} where the evaluation runs; verdicts of both are not mixed: "
            "make the machines alike, or keep this one out of the cluster"
        )
    yield from run_programs(programs, limits, workers, unsafe_no_sandbox)
