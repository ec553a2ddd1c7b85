"""The process that compiles one step for TPUs that are not here: `python -m jaxwiz.plan.worker FOLDER`.

It takes `request.pickle` from the folder and leaves `compiled.pickle` or, where compiling failed, `error.txt` there.
What XLA writes to stderr is the parent's to read. Arrays are shapes only: nothing of the model's size is allocated.
"""

import math
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxwiz.checkpoint.train_state import abstract_like
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.inference import inference_weights, weight_shardings
from jaxwiz.model.pages import cache_shardings, init_pages
from jaxwiz.model.params import count_params, init_params
from jaxwiz.plan.request import Compiled, Request
from jaxwiz.sample.decode import DecodeState, Model, decode_block
from jaxwiz.sample.pace import PAGE_TOKENS
from jaxwiz.sample.slots import slot_rows
from jaxwiz.sharding.mesh import make_mesh
from jaxwiz.sharding.rules import batch_sharding, replicated
from jaxwiz.train.loss import Objective
from jaxwiz.train.optimizer import learning_rate_schedule, make_optimizer
from jaxwiz.train.state import abstract_state, state_shardings, trained_specs
from jaxwiz.train.step import make_train_step

_SOME_STEPS = 100  # the length of the schedule has no say in the program's size
_DECODE_STEPS = 8  # tokens a call; each runs the same loop body
_END_TOKENS = 1


def main(folder: Path) -> None:
    """Compiles what `folder` asks for and leaves the result there."""
    request: Request = pickle.loads((folder / "request.pickle").read_bytes())
    try:
        compiled = compile_request(request)
    except Exception as error:
        (folder / "error.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise
    (folder / "compiled.pickle").write_bytes(pickle.dumps(compiled))


def compile_request(request: Request) -> Compiled:
    """Returns the compiled step of a request, for the chips that it names."""
    mesh = make_mesh(request.train.mesh, topology_devices(request))
    lowered, kinds, attention = (_train_step if request.decode is None else _decode_step)(request, mesh)
    start = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - start
    memory: Any = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    devices = list(mesh.devices.flat)
    return Compiled(
        hlo=compiled.as_text() or "",
        mesh=dict(mesh.shape),
        places=[(_slice_of(device), *device.coords[: len(request.topology.shape)]) for device in devices],
        attention=attention,
        kinds=kinds,
        arguments=memory.argument_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        xla_flops=float(cost.get("flops", 0.0)),
        parameters=count_params(request.model),
        seconds=seconds,
    )


def topology_devices(request: Request) -> list[Any]:
    """Returns the absent devices of a request's topology."""
    from jax.experimental import topologies

    topology = request.topology
    options: dict[str, Any] = {}
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if topology.chip.chip_config:
        options["chip_config_name"] = topology.chip.chip_config
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options).devices)


def _slice_of(device: Any) -> int:
    return getattr(device, "slice_index", None) or 0


def _train_step(request: Request, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Lowered, dict[str, int], str]:
    model, config = request.model, request.train
    optimizer = make_optimizer(config.optimizer, _SOME_STEPS, trained_specs(model, config.lora))
    shardings = state_shardings(model, optimizer, mesh, config.lora)
    frozen_dtype = jnp.dtype(config.compute.dtype)
    state = abstract_like(abstract_state(model, optimizer, config.lora, frozen_dtype), shardings)
    row = jax.ShapeDtypeStruct((config.batch.rows, request.length), jnp.int32, sharding=batch_sharding(mesh))
    batch = dict.fromkeys(("tokens", "loss_mask", "segment_ids", "positions"), row)
    shape = AttentionShape.of(model, request.length, config.compute.dtype)
    step = make_train_step(
        model,
        config.compute,
        config.batch.micro_batches,
        optimizer,
        learning_rate_schedule(config.optimizer, _SOME_STEPS),
        shardings,
        mesh,
        config.lora,
        config.seed,
        Objective(config.loss.z_loss, config.loss.label_smoothing),
    )
    kinds = {
        "weights": _device_bytes((state.params, state.frozen)),
        "optimizer": _device_bytes(state.opt_state),
        "batch": _device_bytes(batch),
    }
    return step.lower(state, batch), kinds, choose_attention(config.compute.attention, shape, mesh).name


def _decode_step(request: Request, mesh: jax.sharding.Mesh) -> tuple[jax.stages.Lowered, dict[str, int], str]:
    assert request.decode is not None
    model, shape, dtype = request.model, request.decode, jnp.dtype(request.train.compute.dtype)
    weights = jax.eval_shape(
        lambda: inference_weights(init_params(model, jax.random.key(0)), model, request.train.compute.dtype)
    )
    weights = abstract_like(weights, weight_shardings(weights, mesh))
    columns = -(-shape.slots // PAGE_TOKENS)
    cache = jax.eval_shape(lambda: init_pages(model, shape.rows * columns, PAGE_TOKENS, dtype))
    cache = abstract_like(cache, cache_shardings(cache, mesh))

    def rows(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))

    state = DecodeState(
        cache,
        rows(jax.ShapeDtypeStruct((shape.rows, model.hidden_size), dtype)),
        rows(jax.ShapeDtypeStruct((shape.rows, model.vocab_size), jnp.bool_)),
    )
    slots = jax.tree.map(rows, slot_rows([None] * shape.rows, columns, model.vocab_size))
    lowered = decode_block.lower(
        Model(weights, mesh=mesh), model, state, slots, rows(jax.ShapeDtypeStruct((_END_TOKENS,), jnp.int32)),
        steps=_DECODE_STEPS, columns=columns, vocab_size=model.vocab_size,
    )  # fmt: skip
    return lowered, {"weights": _device_bytes(weights), "cache": _device_bytes(cache)}, "paged"


def _device_bytes(tree: Any) -> int:
    """Returns the bytes that one device holds of a tree of shapes with shardings."""
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
