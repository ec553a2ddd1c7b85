"""The train stage: a checkpoint and packed shards in, a fine-tuned checkpoint out.

    jaxwiz train configs/train/quickstart.yaml

Results below `out`: `model/` (a weights checkpoint), `summary.json`, `summary.txt`. Beside them lie `metrics.jsonl`,
`tensorboard/`, and `state/`, from which a killed run continues. A state is what is trained and its moments, so each one
kept takes three times that size; once the run is finished it can be deleted. With `lora`, `adapter/` lies there too,
and with `benchmark` a folder of this name. `logs/` holds a file for each process.

Several processes run this together (`sharding/processes.py`); `out` has to lie where all of them can write.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

from jaxwiz import console, files
from jaxwiz.config import Finding
from jaxwiz.model.params import count_params
from jaxwiz.sharding.agreement import require_agreement
from jaxwiz.sharding.processes import current
from jaxwiz.train.agreement import input_facts, mesh_facts
from jaxwiz.train.benchmark import check_benchmark, require_benchmark
from jaxwiz.train.check import check_training
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.job import TrainJob, make_job
from jaxwiz.train.loop import train
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.result import save_result, trained_parameters
from jaxwiz.train.speed import SpeedMeter


def run(config: TrainConfig, profile: str | None = None) -> Path:
    """Returns `config.out` after training, continuing from the newest state below it if there is one.

    Args:
      config: what to train, on what.
      profile: steps to trace, "FIRST:LAST"; see `train/profile.py`.

    Raises:
      UserError: dataset, checkpoint, mesh or benchmark do not fit together, or the loss is not finite.
    """
    processes = current()
    log = config.out / "logs" / f"process-{processes.index}.log"
    processes.log_beside(log)
    with console.logged_to(log, on_console=processes.is_first):
        host = f"{socket.gethostname()}, pid {os.getpid()}"
        console.say(f"train: process {processes.index} of {processes.count} ({processes.source}) on {host}")
        require_agreement(processes, input_facts(config) if processes.count > 1 else {})
        if processes.is_first:
            require_benchmark(config)
        job = make_job(config)
        require_agreement(processes, mesh_facts(job.mesh))
        state, meter = train(job, profile)
        save_result(job, state)
        if processes.is_first:
            summary = summarize(job, meter)
            files.write_text(config.out / "summary.json", json.dumps(summary, indent=1) + "\n")
            files.write_text(config.out / "summary.txt", describe(summary))
    return config.out


def check(config: TrainConfig) -> list[Finding]:
    """Returns what can be said before training: whether the parts fit together, its size, its memory."""
    return check_training(config) + check_benchmark(config)


def summarize(job: TrainJob, meter: SpeedMeter) -> dict[str, Any]:
    """Returns what a finished run came to; losses from its metrics, speed from the part that this process ran."""
    lines = read_metrics(job.config.out / "metrics.jsonl")
    curve = [[line["step"], line["loss"]] for line in lines if "loss" in line]
    heldout_curve = [[line["step"], line["heldout_loss"]] for line in lines if "heldout_loss" in line]
    return {
        "steps": job.steps,
        "parameters": count_params(job.model),
        "trained_parameters": trained_parameters(job),
        "train_tokens": sum(line.get("tokens", 0) for line in lines),
        "loss_tokens": sum(line.get("loss_tokens", 0) for line in lines),
        "heldout_loss_before": heldout_curve[0][1] if heldout_curve else None,
        "heldout_loss_after": heldout_curve[-1][1] if heldout_curve else None,
        "curve": curve,
        "heldout_curve": heldout_curve,
        "benchmark_curve": [[line["step"], line["benchmark"]] for line in lines if "benchmark" in line],
        "tokens_per_s": meter.tokens_per_s,
        "mfu": meter.mfu,
        "peak_flops_per_s": meter.peak.flops_per_s,
        "peak_flops_source": meter.peak.source,
    }


def _adapters(summary: dict[str, Any]) -> str:
    if summary["trained_parameters"] == summary["parameters"]:
        return ""
    return f" with {summary['trained_parameters']:,} more in adapters, the only ones trained,"


def describe(summary: dict[str, Any]) -> str:
    """Returns a run's summary as a few lines of text."""
    curve = summary["curve"]
    lines = [
        f"{summary['steps']:,} steps of a model with {summary['parameters']:,} parameters"
        f"{_adapters(summary)} on "
        f"{summary['train_tokens']:,} tokens, {summary['loss_tokens']:,} of them with loss",
        f"train loss {curve[0][1]:.4f} at step {curve[0][0]}, {curve[-1][1]:.4f} at step {curve[-1][0]}",
    ]
    if summary["heldout_curve"]:
        before, after = summary["heldout_loss_before"], summary["heldout_loss_after"]
        lines.append(f"held-out loss {before:.4f} before, {after:.4f} after ({after - before:+.4f} nats a token)")
    else:
        lines.append("held-out loss: not measured, the dataset has no held-out split")
    for step, scores in summary["benchmark_curve"]:
        lines.append(f"after step {step}: {', '.join(f'{name} {value:.1%}' for name, value in scores.items())}")
    if summary["tokens_per_s"] is not None:
        lines.append(
            f"{summary['tokens_per_s']:,.0f} tokens/s, MFU {summary['mfu']:.1%} of "
            f"{summary['peak_flops_per_s'] / 1e9:,.0f} GFLOP/s ({summary['peak_flops_source']})"
        )
    return "\n".join(lines) + "\n"
