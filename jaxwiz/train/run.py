"""The train stage: a checkpoint and packed shards in, a fine-tuned checkpoint out.

    jaxwiz train configs/train/quickstart.yaml

Results below `out`: `model/` (a weights checkpoint), `summary.json`, `summary.txt`. Beside them lie `metrics.jsonl`,
`tensorboard/`, and `state/`, from which a killed run continues. A state is what is trained and its moments, so each one
kept takes three times that size; once the run is finished it can be deleted. With `lora`, `adapter/` lies there too,
and with `benchmark` a folder of this name. `logs/` holds a file for each process, `history.jsonl` each start and end,
with versions, state of the source and reason, and `progress.json` where the run is; `jaxwiz status` shows all of it.

Several processes run this together (`sharding/processes.py`); `out` has to lie where all of them can write.
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxwiz import console, files
from jaxwiz.config import Finding
from jaxwiz.model.params import count_params
from jaxwiz.sharding.agreement import require_agreement
from jaxwiz.sharding.processes import current
from jaxwiz.train.agreement import input_facts, mesh_facts
from jaxwiz.train.bad_data import CorruptRows, ShardCheck, count_corrupt_rows
from jaxwiz.train.benchmark import check_benchmark, require_benchmark
from jaxwiz.train.check import check_training
from jaxwiz.train.config import TrainConfig
from jaxwiz.train.history import History
from jaxwiz.train.job import TrainJob, make_job
from jaxwiz.train.loop import Guards, train
from jaxwiz.train.metrics import read_metrics
from jaxwiz.train.result import save_result, trained_parameters
from jaxwiz.train.speed import SpeedMeter
from jaxwiz.train.stopping import StopRequestedError, StopSignals


def run(config: TrainConfig, profile: str | None = None, allow_change: Sequence[str] = ()) -> Path:
    """Returns `config.out` after training, continuing from the newest state below it if there is one.

    Args:
      config: what to train, on what.
      profile: steps to trace, "FIRST:LAST"; see `train/profile.py`.
      allow_change: keys of the config that may differ from a saved state's; see `train/resume.py`.

    Raises:
      UserError: dataset, checkpoint, mesh or benchmark do not fit together, too many steps were not finite, the saved
        state is another run's, or the last save never succeeded.
      StopRequestedError: it was told to end; its state is saved.
    """
    processes = current()
    log = config.out / "logs" / f"process-{processes.index}.log"
    processes.log_beside(log)
    with (
        console.logged_to(log, on_console=processes.is_first),
        History(config.out, processes) as history,
        StopSignals(processes) as stopping,
    ):
        host = f"{socket.gethostname()}, pid {os.getpid()}"
        console.say(f"train: process {processes.index} of {processes.count} ({processes.source}) on {host}")
        require_agreement(processes, input_facts(config) if processes.count > 1 else {})
        if processes.is_first:
            require_benchmark(config)
        tolerant = config.intervals.faults.on_corrupt == "skip"
        job = make_job(config, CorruptRows(config.out, processes) if tolerant else None)
        shards = ShardCheck([config.dataset, *(share.path for share in config.mix)], processes, tolerant)
        require_agreement(processes, mesh_facts(job.mesh))
        try:
            state, meter, checkpoints = train(job, Guards(stopping, history, shards, log), profile, allow_change)
            shards.finish()
        except StopRequestedError:
            processes.leave()  # all of them stopped at the same place
            raise
        save_result(job, state)
        if processes.is_first:
            summary = summarize(job, meter)
            files.write_text(config.out / "summary.json", json.dumps(summary, indent=1) + "\n")
            files.write_text(config.out / "summary.txt", describe(summary))
        checkpoints.require_saved()
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
        "skipped_steps": [line["step"] for line in lines if "skipped" in line],
        "loss_spikes": [line["step"] for line in lines if "spike" in line],
        "corrupt_rows": count_corrupt_rows(job.config.out),
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
    left_out = {
        "step(s) left out, their numbers were not finite": len(summary["skipped_steps"]),
        "spike(s) of the loss": len(summary["loss_spikes"]),
        "row(s) left out, they could not be read": sum(summary["corrupt_rows"].values()),
    }
    lines = [
        f"{summary['steps']:,} steps of a model with {summary['parameters']:,} parameters"
        f"{_adapters(summary)} on "
        f"{summary['train_tokens']:,} tokens, {summary['loss_tokens']:,} of them with loss",
        f"train loss {curve[0][1]:.4f} at step {curve[0][0]}, {curve[-1][1]:.4f} at step {curve[-1][0]}",
    ]
    lines += [f"{count} {what}" for what, count in left_out.items() if count]
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
