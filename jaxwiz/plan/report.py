"""A plan as text: what it needs, what it moves, what it waits for, each with the formula or the constant behind it."""

from collections.abc import Sequence

from jaxwiz.plan.build import Plan, missing_text
from jaxwiz.plan.chips import GIB, MIN_FREE
from jaxwiz.plan.minimum import FORMULA
from jaxwiz.plan.search import Attempt


def plan_text(plan: Plan) -> str:
    """Returns the whole report of one plan."""
    return "\n\n".join([_head(plan), _memory(plan), _work(plan), _time(plan)]) + "\n"


def attempts_text(attempts: Sequence[Attempt], best: Attempt | None) -> str:
    """Returns what a search tried, one line each, and what it recommends."""
    lines = ["tried"]
    for attempt in attempts:
        if isinstance(attempt.found, Plan):
            plan = attempt.found
            verdict = "fits" if plan.fits else f"leaves less than {MIN_FREE:.0%} free"
            result = f"{verdict}: peak {plan.compiled.peak / GIB:.2f} GiB, MFU at most {plan.roofline.mfu_bound:.1%}"
        else:
            result = f"does not fit: {missing_text(attempt.found.missing)}"
        lines.append(f"  {attempt.change:44} {result}")
    if best is not None:
        lines.append(f"best: {best.change}")
    else:
        lines.append("nothing that was tried fits; use more chips, or adapters (a recipe's `lora` section)")
    return "\n".join(lines) + "\n"


def _head(plan: Plan) -> str:
    request, compiled = plan.request, plan.compiled
    topology, train = request.topology, request.train
    mesh = " x ".join(f"{axis} {size}" for axis, size in compiled.mesh.items() if size > 1) or "1 device"
    slices = f"{topology.slices} slices of " if topology.slices > 1 else ""
    if request.decode is None:
        batch = train.batch
        step = (
            f"train step: {batch.rows:,} rows of {request.length:,} tokens in {batch.micro_batches} micro-batch(es), "
            f"remat {train.compute.remat}"
        )
    else:
        step = f"decode step: {request.decode.rows:,} sequences, {request.decode.slots:,} tokens of cache each"
    return (
        f"{slices}{topology.name}, {topology.chips} chips, as {mesh}\n{step}, {train.compute.dtype}, attention "
        f"{compiled.attention}\n{compiled.parameters:,} parameters; compiled in {compiled.seconds:.0f} s"
    )


def _memory(plan: Plan) -> str:
    chip, compiled = plan.request.topology.chip, plan.compiled
    rows = [(kind, f"{size / GIB:10.2f}", "") for kind, size in plan.memory.items()]
    rows += [
        ("peak", f"{compiled.peak / GIB:10.2f}", ""),
        ("usable", f"{chip.usable_bytes / GIB:10.2f}", f"of a chip's {chip.hbm_bytes / GIB:.0f}, as the compiler says"),
        ("fits" if plan.fits else "DOES NOT FIT", f"{plan.free_share:10.1%}", f"free; at least {MIN_FREE:.0%} must be"),
    ]
    return _table("memory of each device, GiB", rows)


def _work(plan: Plan) -> str:
    traffic = plan.traffic
    extra = traffic.flops / plan.model_flops - 1
    rows = [
        ("model FLOPs", f"{plan.model_flops:10.3e}", "causal attention over half the square, no recomputation"),
        ("program's FLOPs", f"{traffic.flops:10.3e}", f"{extra:+.0%}: recomputed, and blocks that the diagonal cuts"),
        ("XLA's estimate", f"{plan.compiled.xla_flops:10.3e}", "counts each loop's body once, and no kernel"),
        ("HBM read and written, GB", f"{traffic.hbm_bytes / 1e9:10.1f}", ""),
    ]
    for network, moved in (("ICI", traffic.ici_bytes), ("DCN", traffic.dcn_bytes)):
        rows += [(f"{kind} over {network}, GB", f"{size / 1e9:10.3f}", "") for kind, size in moved.items() if size]
    least = sum(plan.least.values())
    total = sum(traffic.ici_bytes.values()) + sum(traffic.dcn_bytes.values())
    if least:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in plan.least.items() if size)
        rows += [
            ("all collectives, GB", f"{total / 1e9:10.3f}", f"{total / least:.2f} of the least for this sharding:"),
            ("least, GB", f"{least / 1e9:10.3f}", parts),
            ("", f"{'':10}", f"= {FORMULA}"),
        ]
    if traffic.guessed_loops:
        rows.append(
            ("loops of unknown length", f"{len(traffic.guessed_loops):10}", "taken as if every position bore loss")
        )
    return _table("work of each device in a step, bytes as received", rows)


def _time(plan: Plan) -> str:
    topology, chip, line = plan.request.topology, plan.request.topology.chip, plan.roofline
    closed = [topology.closed(axis) for axis in range(len(topology.shape))]
    shape = " x ".join(f"{size}{' ring' if ring else ''}" for size, ring in zip(topology.shape, closed, strict=True))
    link = f"bytes / (links x {chip.link_bandwidth / 1e9:.0f} GB/s each way), torus {shape}"
    rows = [
        ("compute", f"{line.compute:10.3f}", f"FLOPs / {chip.peak_flops / 1e12:.0f} TFLOP/s bf16"),
        ("HBM", f"{line.hbm:10.3f}", f"bytes / {chip.hbm_bandwidth / 1e9:.0f} GB/s"),
        ("interconnect", f"{line.ici:10.3f}", link),
    ]
    if topology.slices > 1:
        rows.append(("network", f"{line.dcn:10.3f}", f"bytes / {chip.dcn_bandwidth / 1e9:.3g} GB/s a chip"))
    rows += [
        ("step, all at once", f"{line.step:10.3f}", f"the largest of these: {line.binds} binds"),
        ("step, nothing overlapped", f"{line.serial:10.3f}", "chip, then links, then network"),
    ]
    if plan.request.decode is None:
        tokens = plan.request.train.batch.rows * plan.request.length / topology.chips
        without = f"model FLOPs / (peak x step); {line.mfu_serial:.1%} if nothing overlaps"
        rows.append(("MFU at most", f"{line.mfu_bound:10.1%}", without))
        rows.append(("tokens/s of a chip at most", f"{tokens / line.step:10,.0f}", ""))
    else:
        rows.append(("tokens/s in all at most", f"{plan.request.decode.rows / line.step:10,.0f}", ""))
    return _table("least time of a step, s", rows)


def _table(title: str, rows: Sequence[tuple[str, str, str]]) -> str:
    lines = [f"  {name:30}{value}   {remark}".rstrip() for name, value, remark in rows]
    return "\n".join([title, *lines])
