"""What can be said of a training run before it starts: fit of its parts, size, memory and disk. Nothing is written."""

import math
from collections.abc import Callable

import jax

from jaxwiz.checkpoint.weights import load_model_config
from jaxwiz.config import Finding
from jaxwiz.files import UserError, free_bytes
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.config import ModelConfig
from jaxwiz.model.lora_params import count_lora
from jaxwiz.model.params import count_params, param_specs
from jaxwiz.model.remat import require_offload_memory
from jaxwiz.sharding.devices import device_memory_bytes
from jaxwiz.sharding.mesh import make_mesh
from jaxwiz.sharding.rules import param_shardings
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.dataset import Manifest, read_manifests, require_matching_checkpoint
from jaxwiz.train.job import require_rows_divide, total_steps
from jaxwiz.train.memory import GIB, step_memory_bytes
from jaxwiz.train.state import trained_specs

_COMFORTABLE_SHARE = 0.8  # of a device's memory: the estimate leaves out what the compiler adds


def check_training(config: TrainConfig) -> list[Finding]:
    """Returns all findings; later ones that need what an earlier error denies are left out."""
    try:
        model = load_model_config(config.checkpoint)
        trained_specs(model, config.lora)  # not every family takes adapters
        manifest = read_manifests(config)
        sizes = config.mesh.sizes(jax.device_count())
    except UserError as error:
        return [Finding("error", str(error))]
    attention = _attention_findings(config, model, manifest)
    can_attend = all(finding.level != "error" for finding in attention)
    return [
        _attempt(
            lambda: require_matching_checkpoint(config.dataset, manifest, config.checkpoint),
            f"dataset and checkpoint: same tokenizer, {manifest.sequence_length} of {model.context_length} positions",
        ),
        _attempt(
            lambda: param_shardings(make_mesh(config.mesh), param_specs(model)),
            "mesh: " + " x ".join(f"{axis} {size}" for axis, size in sizes.items()),
        ),
        _attempt(
            lambda: require_rows_divide(config, sizes),
            f"batch: {config.batch.rows} rows of {manifest.sequence_length} tokens in {config.batch.micro_batches} "
            "micro-batch(es)",
        ),
        *_length_findings(config, manifest),
        *attention,
        *([_memory_finding(config, model, manifest, sizes)] if can_attend else []),
        _disk_finding(config, model),
    ]


def _attempt(action: Callable[[], object], success: str) -> Finding:
    try:
        action()
    except UserError as error:
        return Finding("error", str(error))
    return Finding("ok", success)


def _attention_findings(config: TrainConfig, model: ModelConfig, manifest: Manifest) -> list[Finding]:
    try:
        require_offload_memory(config.compute.remat, jax.local_devices()[0])
        context = config.mesh.sizes(jax.device_count())["context"]
        shape = AttentionShape.of(model, manifest.sequence_length, config.compute.dtype, context)
        chosen = choose_attention(config.compute.attention, shape)
    except UserError as error:
        return [Finding("error", str(error))]
    passed_over = [Finding("warning", f"attention kernel passed over, {reason}") for reason in chosen.passed_over]
    return [*passed_over, Finding("ok", f"attention kernel: {chosen.name}, proven on packed rows when the run starts")]


def _length_findings(config: TrainConfig, manifest: Manifest) -> list[Finding]:
    if not manifest.rows.get("train"):
        return [Finding("error", f"{config.dataset}: no train split; run the data stage with other sources")]
    rows = manifest.rows["train"]
    steps = total_steps(config, rows)
    epochs = steps / math.ceil(rows / config.batch.rows)
    findings = [Finding("ok", f"length: {steps:,} steps, {epochs:.2f} epochs of {rows:,} rows")]
    warmup = config.optimizer.warmup_steps
    if warmup >= steps:
        findings.append(
            Finding(
                "warning",
                f"optimizer.warmup_steps = {warmup}: the run has {steps} steps, so its learning rate never reaches the "
                "peak; lower warmup_steps",
            )
        )
    if not manifest.rows.get("heldout"):
        findings.append(
            Finding("warning", f"{config.dataset}: no held-out split, so whether training helps is not measured")
        )
    return findings


def _memory_finding(config: TrainConfig, model: ModelConfig, manifest: Manifest, sizes: dict[str, int]) -> Finding:
    need = step_memory_bytes(model, config, manifest.sequence_length, sizes)
    total, have = sum(need.values()), device_memory_bytes()
    parts = ", ".join(f"{kind} {size / GIB:.2f}" for kind, size in need.items())
    message = f"memory of each device: about {total / GIB:.2f} of {have / GIB:.1f} GiB ({parts})"
    if have and total > have * _COMFORTABLE_SHARE:
        return Finding(
            "warning",
            f"{message}; raise batch.micro_batches, set compute.remat = 'full', or use more fsdp devices if it fails",
        )
    return Finding("ok", message)


def _disk_finding(config: TrainConfig, model: ModelConfig) -> Finding:
    model_bytes = 4 * count_params(model)
    trained_bytes = model_bytes if config.lora is None else 4 * count_lora(model, config.lora)
    # The newest state is complete before an older one goes; `model/` is one more copy of the parameters.
    need = 3 * trained_bytes * (config.intervals.keep_checkpoints + 1) + model_bytes
    free = free_bytes(config.out)
    message = f"disk below {config.out}: at most {need / GIB:.1f} GiB of {free / GIB:.1f} GiB free"
    if need > free:
        return Finding("error", f"{message}; free some, lower intervals.keep_checkpoints, or set out elsewhere")
    return Finding("ok", message)
