"""What would make a step fit, or fit with fewer parts: found by compiling, not by estimates.

Memory falls with every step along three ladders, so each is climbed only until the step fits:

    micro-batches    more, smaller parts of the same batch            costs gathering the weights more often
    remat            none, dots, save_feed_forward, and so to full    costs recomputation
    fsdp             replicas and tensor shards given to fsdp         costs wider gathers
"""

import dataclasses
from collections.abc import Callable, Iterator

from jaxwiz import console
from jaxwiz.plan.build import Plan, make_plan
from jaxwiz.plan.request import OutOfMemory, Request
from jaxwiz.sharding.rules import batch_shards

_LIGHTEST_FIRST = ("none", "dots", "save_feed_forward", "save_attention", "full")

Planner = Callable[[Request], Plan | OutOfMemory]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One way that was tried.

    Attributes:
      change: what of the recipe is other than it was, as overrides.
      request: with that change.
      found: its plan, or what is missing.
    """

    change: str
    request: Request
    found: Plan | OutOfMemory

    @property
    def fits(self) -> bool:
        """Whether the step fits with enough to spare."""
        return isinstance(self.found, Plan) and self.found.fits


def largest_batch(request: Request, planner: Planner = make_plan) -> list[Attempt]:
    """Returns what was tried to find the largest micro-batch that fits: that one is `largest_of` them.

    Args:
      request: the recipe, whose rows, remat and mesh stay.
      planner: makes a plan.
    """
    counts = sorted(_part_counts(request))
    low, high, attempts = 0, len(counts), []
    while low < high:  # the first of `counts` that fits; memory falls with the number of parts
        middle = (low + high) // 2
        attempts.append(_try(_with_parts(request, counts[middle]), f"batch.micro_batches={counts[middle]}", planner))
        low, high = (low, middle) if attempts[-1].fits else (middle + 1, high)
    attempts.sort(key=lambda attempt: -attempt.request.train.batch.micro_batches)
    return attempts


def advice(request: Request, planner: Planner = make_plan) -> list[Attempt]:
    """Returns, for a step that does not fit, what was tried along each ladder, up to the first that fits on it."""
    attempts: list[Attempt] = []
    for ladder in (_more_parts, _more_remat, _more_fsdp):
        for change, changed in ladder(request):
            attempts.append(_try(changed, change, planner))
            if attempts[-1].fits:
                break
    if not any(attempt.fits for attempt in attempts):
        for (_, heavier), (_, smaller) in zip(_last(_more_remat(request)), _last(_more_parts(request)), strict=False):
            parts = smaller.train.batch.micro_batches
            change = f"compute.remat=full batch.micro_batches={parts}"
            attempts.append(_try(_with_parts(heavier, parts), change, planner))
    return attempts


def largest_of(attempts: list[Attempt]) -> Attempt | None:
    """Returns the attempt that fits with the fewest micro-batches, or None."""
    fitting = [attempt for attempt in attempts if attempt.fits]
    return min(fitting, key=lambda attempt: attempt.request.train.batch.micro_batches, default=None)


def best_of(attempts: list[Attempt]) -> Attempt | None:
    """Returns the attempt that fits with the highest bound of utilisation, or None."""
    fitting = [attempt for attempt in attempts if attempt.fits]
    return max(fitting, key=lambda attempt: attempt.found.roofline.mfu_bound, default=None)  # type: ignore[union-attr]


def _try(request: Request, change: str, planner: Planner) -> Attempt:
    console.say(f"plan: trying {change}")
    return Attempt(change, request, planner(request))


def _part_counts(request: Request) -> list[int]:
    """Returns the numbers of micro-batches that give every device a whole number of rows."""
    rows = request.train.batch.rows
    shards = batch_shards(request.train.mesh.sizes(request.topology.chips))
    return [parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts % shards == 0]


def _more_parts(request: Request) -> Iterator[tuple[str, Request]]:
    for parts in _part_counts(request):
        if parts > request.train.batch.micro_batches:
            yield f"batch.micro_batches={parts}", _with_parts(request, parts)


def _more_remat(request: Request) -> Iterator[tuple[str, Request]]:
    now = request.train.compute.remat
    ladder = _LIGHTEST_FIRST[_LIGHTEST_FIRST.index(now) + 1 :] if now in _LIGHTEST_FIRST else ()
    for remat in ladder:
        compute = dataclasses.replace(request.train.compute, remat=remat)  # type: ignore[arg-type]
        yield f"compute.remat={remat}", _with_train(request, compute=compute)


def _more_fsdp(request: Request) -> Iterator[tuple[str, Request]]:
    mesh, sizes = request.train.mesh, request.train.mesh.sizes(request.topology.chips)
    for axis in ("data", "tensor"):
        if sizes[axis] > 1:
            changed = dataclasses.replace(mesh, **(sizes | {axis: 1, "fsdp": sizes["fsdp"] * sizes[axis]}))
            request_of = _with_train(request, mesh=changed)
            if request.train.batch.micro_batches in _part_counts(request_of):
                yield f"mesh.{axis}=1 mesh.fsdp={sizes['fsdp'] * sizes[axis]}", request_of


def _last(ladder: Iterator[tuple[str, Request]]) -> list[tuple[str, Request]]:
    return list(ladder)[-1:]


def _with_parts(request: Request, parts: int) -> Request:
    return _with_train(request, batch=dataclasses.replace(request.train.batch, micro_batches=parts))


def _with_train(request: Request, **changes: object) -> Request:
    return dataclasses.replace(request, train=dataclasses.replace(request.train, **changes))  # type: ignore[arg-type]
