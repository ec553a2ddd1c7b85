"""`fan_out`: a stream of items in, a stream of results out, wherever the work is done."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from jaxwiz.config import Finding
from jaxwiz.fanout.config import LocalEngine, RayEngine
from jaxwiz.files import UserError

K = TypeVar("K")
I = TypeVar("I")
R = TypeVar("R")

Work = Callable[[Iterator[tuple[K, I]]], Iterator[tuple[K, R]]]


class FanoutError(UserError):
    """A cluster that can't be used, or a node that can't do its part; names the node and the remedy."""


def fan_out(
    engine: LocalEngine | RayEngine,
    work: Work[K, I, R],
    items: Iterable[tuple[K, I]],
    *,
    per_shard: int = 1,
    ahead: int = 0,
) -> Generator[tuple[K, R], None, None]:
    """Yields (key, result) of every item exactly once, as they come.

    Args:
      engine: where to work.
      work: draws (key, item) pairs as it has room for them and yields (key, result) of each, in any order. For a
        cluster it must be a module's function, or a `functools.partial` of one with plain data; each worker process
        calls it once, so what is slow to begin with (loading a model) belongs before its loop.
      items: drawn as there is room, so memory stays flat for any number; keys are hashable and all different.
      per_shard: items that go to a worker process at once, and come back at once. What a lost one had is done again by
        another, and no result is seen twice.
      ahead: shards that wait in each worker process beside the one under way; 0 where an item takes long.

    Raises:
      FanoutError: no Ray, no cluster, nodes that are unlike this machine, or work that was lost too often.
      UserError: as `work` raised it; from a cluster as a FanoutError that names the node.
    """
    if isinstance(engine, LocalEngine):
        yield from work(iter(items))
    else:
        from jaxwiz.fanout.cluster import fan_out_over_ray

        results: Generator[Any, None, None] = fan_out_over_ray(engine, work, items, per_shard, ahead)
        yield from results


def check_engine(engine: LocalEngine | RayEngine) -> list[Finding]:
    """Returns what can be told of an engine before it is used: whether its cluster is there, and how large it is."""
    if isinstance(engine, LocalEngine):
        return []
    from jaxwiz.fanout.cluster import usable_nodes

    try:
        nodes = usable_nodes(engine)
    except UserError as error:
        return [Finding("error", str(error))]
    return [Finding("ok", f"engine ray: {len(nodes)} node(s) with {engine.resources}: {', '.join(nodes)}")]
