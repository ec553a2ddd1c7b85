"""The training loop, in an order that is a promise:

    restore or begin -> [held-out loss and benchmark before the first step] -> for each step: its batch, the step
    itself, then where due held-out loss, then benchmark, then checkpoint -> both measured after the last step

The state after step n is saved only once the metrics of step n are written and known to be finite, so a run that
continues from it has all its lines, and never continues from broken numbers. The loop dispatches a few steps ahead of
the devices and reads metrics late: reading them at once would leave the devices idle while the host prepares.

It does not retry, skip bad steps or listen to preemption notices.
"""

import collections
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxwiz import console
from jaxwiz.checkpoint.train_state import TrainCheckpoints
from jaxwiz.checkpoint.weights import load_weights
from jaxwiz.model.attention_check import require_attention
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.params import Params
from jaxwiz.train import benchmark
from jaxwiz.train.job import TrainError, TrainJob
from jaxwiz.train.metrics import MetricsLog
from jaxwiz.train.speed import SpeedMeter, Work, peak_of_devices, work_of
from jaxwiz.train.state import TrainState, first_state

STEPS_AHEAD = 2


def train(job: TrainJob) -> tuple[TrainState, SpeedMeter]:
    """Returns the state after the last step, continuing from the newest checkpoint below `config.out` if there is one.

    Raises:
      TrainError: the loss or a gradient is not finite; names the step.
    """
    out = job.config.out
    checkpoints = TrainCheckpoints(out / "state", job.config.intervals.keep_checkpoints)
    try:
        restored_step = checkpoints.latest_step()
        log = MetricsLog(out, restored_step, job.config.intervals.log_steps)
        try:
            return _Loop(job, checkpoints, log).run(restored_step)
        finally:
            log.close()
    finally:
        checkpoints.close()


class _Loop:
    """The moving parts of one run; `run` is the order contract."""

    def __init__(self, job: TrainJob, checkpoints: TrainCheckpoints, log: MetricsLog) -> None:
        self._job = job
        self._checkpoints = checkpoints
        self._log = log
        self._meter = SpeedMeter(peak_of_devices(job.config.compute.dtype))
        self._unread: collections.deque[tuple[int, dict[str, jax.Array], Work]] = collections.deque()

    def run(self, restored_step: int | None) -> tuple[TrainState, SpeedMeter]:
        job, config, intervals = self._job, self._job.config, self._job.config.intervals
        peak = self._meter.peak
        console.say(f"train: MFU is relative to {peak.flops_per_s / 1e9:,.0f} GFLOP/s ({peak.source})")
        self._check_attention()
        console.say(f"train: compiling for {job.mesh.size} device(s)")
        train_step = job.compiled_train_step()
        self._eval_step = None if job.heldout_feed is None else job.compiled_eval_step()
        if restored_step is None:
            step, state = 0, self._first_state()
        else:
            saved = self._checkpoints.restore(restored_step, job.abstract_state().to_save())
            step, state = restored_step, dataclasses.replace(saved, frozen=self._frozen())
            console.say(f"train: continues after step {step} of {job.steps}")
        with console.progress("train", job.steps, "steps", start=step) as advance:
            if restored_step is None:
                self._evaluate(0, state, advance)
                if config.benchmark is not None:
                    self._benchmark(0, state)
            self._meter.start()
            while step < job.steps:
                batch = job.train_batch(step)
                state, metrics = train_step(state, job.to_devices(batch))
                step += 1
                self._unread.append((step, metrics, work_of(batch, job.model, job.config.lora)))
                last = step == job.steps
                evaluate = last or _due(step, intervals.eval_steps)
                measure = config.benchmark is not None and (last or _due(step, config.benchmark.every_steps))
                save = not last and _due(step, intervals.checkpoint_steps)
                self._read_metrics(0 if evaluate or measure or save else STEPS_AHEAD, advance)
                if evaluate:
                    self._evaluate(step, state, advance)
                if measure:
                    self._benchmark(step, state)
                if save:
                    self._checkpoints.save(step, state.to_save())
                if evaluate or measure or save:
                    self._meter.start()
        return state, self._meter

    def _check_attention(self) -> None:
        """Stops the run if its attention kernel isn't one."""
        job, compute = self._job, self._job.config.compute
        shape = AttentionShape.of(job.model, job.manifest.sequence_length, compute.dtype)
        chosen = choose_attention(compute.attention, shape, job.mesh)
        for reason in chosen.passed_over:
            console.say(f"train: attention kernel passed over, {reason}")
        errors = require_attention(chosen, shape, job.mesh)
        console.say(f"train: attention kernel {chosen.name}, compared with the definition: {errors}")

    def _first_state(self) -> TrainState:
        job = self._job
        if job.config.lora is None:
            weights = load_weights(job.config.checkpoint, job.shardings.params, jnp.float32)
        else:
            weights = self._frozen()
        begin = functools.partial(
            first_state, model=job.model, optimizer=job.optimizer, lora=job.config.lora, seed=job.config.seed
        )
        return jax.jit(begin, out_shardings=job.shardings, donate_argnums=0)(weights)

    def _frozen(self) -> Params:
        """Returns the weights that adapters stand beside, in the dtype that computes with them; {} without adapters."""
        job = self._job
        if job.config.lora is None:
            return {}
        return load_weights(job.config.checkpoint, job.shardings.frozen, jnp.dtype(job.config.compute.dtype))

    def _read_metrics(self, leave: int, advance: console.Advance) -> None:
        """Fetches the metrics of all but the newest `leave` steps, waiting for those steps to finish."""
        while len(self._unread) > leave:
            step, metrics, work = self._unread.popleft()
            values: dict[str, Any] = {name: value.item() for name, value in jax.device_get(metrics).items()}
            self._meter.finished(work)
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values[name]):
                    saved = self._checkpoints.latest_step()
                    raise TrainError(
                        f"step {step}: {name} = {values[name]}; a finite value is needed to go on. Lower "
                        f"optimizer.learning_rate (now {self._job.config.optimizer.learning_rate}) or raise "
                        f"optimizer.warmup_steps, and look at that step's rows; last good state: "
                        f"{'none saved' if saved is None else f'step {saved}'}"
                    )
            tokens_per_s, mfu = self._meter.tokens_per_s or 0.0, self._meter.mfu or 0.0
            self._log.write_step(step, {**values, "tokens": work.tokens}, {"tokens_per_s": tokens_per_s, "mfu": mfu})
            advance(1, f"loss {values['loss']:.4f}  {tokens_per_s:,.0f} tokens/s  MFU {mfu:.1%}")

    def _evaluate(self, step: int, state: TrainState, advance: console.Advance) -> None:
        if self._eval_step is None:
            return
        loss_sum, loss_tokens = 0.0, 0
        for number, batch in enumerate(self._job.heldout_batches(), start=1):
            batch_sum, batch_count = jax.device_get(
                self._eval_step(state.params, state.frozen, self._job.to_devices(batch))
            )
            loss_sum, loss_tokens = loss_sum + float(batch_sum), loss_tokens + int(batch_count)
            advance(0, f"held-out batch {number}")
        if loss_tokens == 0:
            raise TrainError(f"{self._job.config.dataset}: no row of the heldout split bears loss; build it again")
        loss = loss_sum / loss_tokens
        if not math.isfinite(loss):
            raise TrainError(f"held-out loss after step {step} = {loss}; are the weights of the checkpoint finite?")
        self._log.write_heldout(step, loss, loss_tokens)
        console.say(f"train: held-out loss {loss:.4f} nats a token after step {step}")

    def _benchmark(self, step: int, state: TrainState) -> None:
        scores = benchmark.measure(self._job, state, step)
        self._log.write_benchmark(step, scores)
        told = ", ".join(f"{name} {value:.1%}" for name, value in scores.items())
        console.say(f"train: {told} after step {step}")


def _due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0
