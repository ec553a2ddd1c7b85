"""`fan_out` over Ray: one process (or several) on each node, shards handed out as they have room.

This process keeps the books. A shard is out with one worker at a time; when that worker is lost, all that it had goes
back in the line, and what it may still send is not looked at, so each result is seen once. Nodes that join are put to
work; a node whose workers keep dying gets no more of it; a shard that workers keep dying of ends the run.

It starts no cluster and copies no code: nodes must have the same jaxwiz, Python and libraries, which is checked.
"""

import collections
import contextlib
import dataclasses
import itertools
import logging
import socket
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from jaxwiz.console import say, warn
from jaxwiz.fanout.config import RayEngine
from jaxwiz.fanout.member import Member, Pair, identity
from jaxwiz.fanout.stream import FanoutError, Work
from jaxwiz.files import UserError

CONNECT_TIMEOUT_S = 10.0
LOOK_FOR_NODES_S = 5.0
SAY_THAT_WE_WAIT_S = 30.0


@dataclasses.dataclass(eq=False)
class _Shard:
    """Items that travel together, and how often a worker was lost that had them."""

    pairs: list[Pair]
    losses: int = 0


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process on a node: its Ray actor, and whether it has said that it is like us."""

    actor: Any
    node: str
    ready: bool = False
    out: int = 0  # shards that it has


def fan_out_over_ray(
    engine: RayEngine, work: Work[Any, Any, Any], items: Iterable[Pair], per_shard: int, ahead: int
) -> Generator[Pair, None, None]:
    """Yields (key, result) of every item; arguments and errors as those of `fan_out`."""
    with _connected(engine) as ray:
        crew = _Crew(ray, engine, work, ahead)
        try:
            yield from crew.results(_cut(items, per_shard))
        finally:
            crew.dismiss()


def usable_nodes(engine: RayEngine) -> list[str]:
    """Returns the names of the cluster's nodes that have the resources for a worker.

    Raises:
      FanoutError: no Ray, no cluster, or no such node.
    """
    with _connected(engine) as ray:
        return list(_nodes(ray, engine).values())


class _Crew:
    """All workers of one run."""

    def __init__(self, ray: Any, engine: RayEngine, work: Work[Any, Any, Any], ahead: int) -> None:
        self._ray = ray
        self._engine = engine
        self._work = ray.put(work)
        self._most_out = 1 + ahead
        self._ours = identity()
        self._workers: dict[_Worker, str] = {}  # and the id of its node
        self._calls: dict[Any, tuple[_Worker, _Shard | None]] = {}  # by Ray's reference; None: the greeting
        self._deaths: collections.Counter[str] = collections.Counter()  # by id of node
        self._lost: collections.deque[_Shard] = collections.deque()
        self._looked_at = self._waited_since = time.monotonic()

    def results(self, shards: Iterator[_Shard]) -> Iterator[Pair]:
        """Yields all results of `shards`."""
        self._hire()
        while True:
            more = self._hand_out(shards)
            if not more and not any(shard for _, shard in self._calls.values()):
                return
            done, _ = self._ray.wait(list(self._calls), timeout=LOOK_FOR_NODES_S)
            for call in done:
                yield from self._take(call)
            if time.monotonic() - self._looked_at > LOOK_FOR_NODES_S or not self._workers:
                self._hire()
            self._tell_if_waiting()

    def dismiss(self) -> None:
        """Ends all workers, also in the middle of their work."""
        for worker in self._workers:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(worker.actor)

    def _hand_out(self, shards: Iterator[_Shard]) -> bool:
        """Gives every worker a shard before any gets a second; returns whether shards may be left."""
        for out in range(self._most_out):
            for worker in self._workers:
                if worker.ready and worker.out == out:
                    shard = self._lost.popleft() if self._lost else next(shards, None)
                    if shard is None:
                        return False
                    self._calls[worker.actor.do.remote(shard.pairs)] = (worker, shard)
                    worker.out += 1
        return True

    def _take(self, call: Any) -> Iterator[Pair]:
        if call not in self._calls:
            return  # of a worker that was given up a moment ago
        worker, shard = self._calls[call]
        try:
            value = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                raise FanoutError(f"node {worker.node}: {error.cause}; install jaxwiz there as it is here") from error
            if isinstance(error.cause, UserError):
                raise FanoutError(f"node {worker.node}: {error.cause}") from None
            raise
        except self._ray.exceptions.RayError as error:
            self._give_up(worker, str(error))
            return
        del self._calls[call]
        if shard is None:
            self._require_alike(worker, value)
        else:
            worker.out -= 1
            yield from value

    def _require_alike(self, worker: _Worker, theirs: dict[str, str]) -> None:
        different = [
            f"{name} is {theirs[name]}, here {ours}" for name, ours in self._ours.items() if theirs[name] != ours
        ]
        if different:
            raise FanoutError(f"node {worker.node}: {'; '.join(different)}; install there what is installed here")
        worker.ready = True

    def _give_up(self, worker: _Worker, reason: str) -> None:
        """Puts all that a worker had back in the line."""
        node_id = self._workers.pop(worker)
        self._deaths[node_id] += 1
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)  # it may only be out of reach: it must not go on
        calls = [call for call, (owner, _) in self._calls.items() if owner is worker]
        shards = [shard for call in calls if (shard := self._calls.pop(call)[1]) is not None]
        first_line = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
        warn(f"lost a worker on node {worker.node} ({first_line}); {len(shards)} shard(s) go to others")
        if self._deaths[node_id] > self._engine.retries:
            warn(f"node {worker.node} lost {self._deaths[node_id]} workers and gets no more; see Ray's logs there")
        for shard in shards:
            shard.losses += 1
            if shard.losses > self._engine.retries:
                raise FanoutError(
                    f"node {worker.node}: {shard.losses} workers were lost that had the items {_ends(shard)}, the last "
                    f"by: {first_line}; engine.retries = {self._engine.retries}. Is there enough memory?"
                )
        self._lost.extend(shards)

    def _hire(self) -> None:
        """Starts the workers that each node lacks, but no more where they keep dying."""
        self._looked_at = time.monotonic()
        nodes = {
            node_id: name
            for node_id, name in _nodes(self._ray, self._engine).items()
            if self._deaths[node_id] <= self._engine.retries
        }
        if not nodes and not self._workers:
            raise FanoutError("engine.kind = 'ray': workers keep dying on every node; see Ray's logs on the nodes")
        at_work = collections.Counter(self._workers.values())
        for node_id, name in nodes.items():
            for _ in range(self._engine.workers_per_node - at_work[node_id]):
                worker = _Worker(self._start_actor(node_id), name)
                self._workers[worker] = node_id
                self._calls[worker.actor.identity.remote()] = (worker, None)

    def _start_actor(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs = dict(self._engine.resources)
        options = {
            "num_cpus": needs.pop("CPU", 0),
            "num_gpus": needs.pop("GPU", 0),
            "resources": needs,
            "max_concurrency": 1 + self._most_out,  # the greeting, and shards
            "max_restarts": 0,  # we hire anew ourselves, on whichever node is there
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        return self._ray.remote(Member).options(**options).remote(self._work)

    def _tell_if_waiting(self) -> None:
        now = time.monotonic()
        if any(worker.ready for worker in self._workers):
            self._waited_since = now
        elif now - self._waited_since > SAY_THAT_WE_WAIT_S:
            self._waited_since = now
            say(f"engine ray: waiting for {self._engine.resources} on {len(self._workers)} node(s); others use them")


def _nodes(ray: Any, engine: RayEngine) -> dict[str, str]:
    """Returns {id: name} of the nodes that are alive and large enough for a worker."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    fitting = {
        node["NodeID"]: f"{node['NodeName']} ({node['NodeID'][:6]})"
        for node in alive
        if all(node["Resources"].get(name, 0) >= amount for name, amount in engine.resources.items())
    }
    if not fitting:
        have = "; ".join(f"{node['NodeName']}: {_plain_resources(node['Resources'])}" for node in alive)
        raise FanoutError(f"engine.resources = {engine.resources}: no node of the cluster has these; they have: {have}")
    return fitting


def _plain_resources(resources: dict[str, float]) -> str:
    """Returns a node's resources as text, without those that Ray counts for itself."""
    own = {name: amount for name, amount in resources.items() if ":" not in name and "memory" not in name}
    return ", ".join(f"{name} {amount:g}" for name, amount in own.items()) or "none"


@contextlib.contextmanager
def _connected(engine: RayEngine) -> Iterator[Any]:
    """Yields the module `ray`, connected to the cluster."""
    try:
        import ray
    except ImportError:
        raise FanoutError(
            "engine.kind = 'ray': Ray is not installed; install the extra, `pip install 'jaxwiz[ray]'`, or set "
            "engine=local"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    try:
        if engine.address != "auto":
            host, _, port = engine.address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()  # Ray itself would try for minutes
        ray.init(address=engine.address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise FanoutError(
            f"engine.address = {engine.address!r}: no Ray cluster to join ({first_line}); start one with `ray start "
            "--head` and run this on one of its nodes, or set engine=local"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _cut(items: Iterable[Pair], per_shard: int) -> Iterator[_Shard]:
    pairs = iter(items)
    while shard := list(itertools.islice(pairs, per_shard)):
        yield _Shard(shard)


def _ends(shard: _Shard) -> str:
    return f"{shard.pairs[0][0]!r} to {shard.pairs[-1][0]!r}" if len(shard.pairs) > 1 else repr(shard.pairs[0][0])
