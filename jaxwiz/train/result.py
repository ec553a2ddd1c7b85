"""What a training run leaves behind: a checkpoint of the trained model, and adapters in a folder of their own."""

import functools
import math
from pathlib import Path
from typing import Any

import jax

from jaxwiz import files
from jaxwiz.checkpoint.adapter import save_adapter
from jaxwiz.checkpoint.weights import provenance, save_weights, tokenizer_folder
from jaxwiz.model.lora_params import merge_lora
from jaxwiz.model.params import Params, map_specs, param_specs
from jaxwiz.sharding.processes import current
from jaxwiz.sharding.rules import param_shardings, replicated
from jaxwiz.train.job import TrainJob
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.state import TrainState, trained_specs


def trained_model(job: TrainJob, state: TrainState) -> Params:
    """Returns the float32 parameters of the model as trained, adapters merged in; the state stays usable."""
    lora = job.config.lora
    if lora is None:
        return state.params
    merge = jax.jit(
        functools.partial(merge_lora, lora=lora), out_shardings=param_shardings(job.mesh, param_specs(job.model))
    )
    return merge(state.frozen, state.params)


def save_result(job: TrainJob, state: TrainState) -> None:
    """Writes `model/`, and `adapter/` beside it where adapters were trained and merged; called in every process.

    Args:
      job: the run.
      state: after its last step.
    """
    config, lora = job.config, job.config.lora
    origin = trained_provenance(job, job.steps)
    if lora is not None:
        adapter = config.out / ("model" if lora.save == "adapter" else "adapter")
        whole = jax.jit(lambda params: params, out_shardings=replicated(job.mesh))(state.params)
        if current().is_first:
            save_adapter(adapter, jax.device_get(whole), lora, config.checkpoint, origin)
        if lora.save == "adapter":
            return
    save_weights(
        config.out / "model",
        trained_model(job, state),
        job.model,
        tokenizer_folder(config.checkpoint),
        origin,
        template=job.manifest.template,
        base=config.checkpoint,
    )


def trained_provenance(job: TrainJob, step: int) -> dict[str, Any]:
    """Returns where the weights after `step` steps came from; the metrics of those steps must be written."""
    config = job.config
    base = provenance(config.checkpoint)
    return {
        "source": f"{base.get('source', 'unknown')}, fine-tuned for {step} steps",
        "sha256": base.get("sha256"),
        "stage": "train",
        "steps": step,
        "train_tokens": sum(line.get("tokens", 0) for line in read_metrics(config.out / "metrics.jsonl")),
        "dataset": {
            "manifest_sha256": _manifest_digest(config.dataset),
            "mix": [{"manifest_sha256": _manifest_digest(one.path), "weight": one.weight} for one in config.mix],
        },
        "checkpoint": base,
    }


def _manifest_digest(dataset: Path) -> str:
    return files.sha256_of_file(dataset / "manifest.json")


def trained_parameters(job: TrainJob) -> int:
    """Returns the number of parameters that a run trains."""
    sizes: list[int] = []
    map_specs(lambda spec: sizes.append(math.prod(spec.shape)), trained_specs(job.model, job.config.lora))
    return sum(sizes)
