"""The training loop, in an order that is a promise:

    restore or begin -> [held-out loss and benchmark before the first step] -> for each step: its batch, the step
    itself, then where due held-out loss, then benchmark, then checkpoint -> both measured after the last step

The state after step n is saved only once the metrics of step n are written and known to be finite, so a run that
continues from it has all its lines, and never continues from broken numbers. The loop dispatches a few steps ahead of
the devices and reads metrics late: reading them at once would leave the devices idle while the host prepares. Batches
come from threads that read ahead (`train/feeding.py`).

Where a job has several processes, each runs this loop, and they part only where something is written once.

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
from jaxwiz.sharding.agreement import require_agreement
from jaxwiz.sharding.processes import Processes, current
from jaxwiz.train import benchmark
from jaxwiz.train.job import TrainError, TrainJob
from jaxwiz.train.metrics import MetricsLog, SilentLog
from jaxwiz.train.profile import annotated, start_trace, steps_to_trace, stop_trace
from jaxwiz.train.speed import SpeedMeter, count_work, peak_of_devices, work_of
from jaxwiz.train.state import TrainState, first_state

STEPS_AHEAD = 2


def train(job: TrainJob, profile: str | None = None) -> tuple[TrainState, SpeedMeter]:
    """Returns the state after the last step, continuing from the newest checkpoint below `config.out` if there is one.

    Args:
      job: the run.
      profile: steps to trace, as `--profile` takes them; None: none.

    Raises:
      TrainError: the loss or a gradient is not finite; names the step.
    """
    out, processes = job.config.out, current()
    checkpoints = TrainCheckpoints(out / "state", job.config.intervals.keep_checkpoints)
    try:
        restored_step = checkpoints.latest_step()
        require_agreement(processes, {f"what it sees in {out / 'state'}": {"newest step": str(restored_step)}})
        traced = steps_to_trace(profile, 1 + (restored_step or 0), job.steps)
        log: MetricsLog | SilentLog = SilentLog()
        if processes.is_first:
            log = MetricsLog(out, restored_step, job.config.intervals.log_steps)
        try:
            return _Loop(job, checkpoints, log, traced, processes).run(restored_step)
        finally:
            log.close()
    finally:
        checkpoints.close()


class _Loop:
    """The moving parts of one run; `run` is the order contract."""

    def __init__(
        self,
        job: TrainJob,
        checkpoints: TrainCheckpoints,
        log: MetricsLog | SilentLog,
        traced: range,
        processes: Processes,
    ) -> None:
        self._job = job
        self._checkpoints = checkpoints
        self._log = log
        self._traced = traced
        self._processes = processes
        self._meter = SpeedMeter(peak_of_devices(job.config.compute.dtype))
        # Step, its metrics, and what `count_work` counted; none of them waited for yet.
        self._unread: collections.deque[tuple[int, dict[str, jax.Array], jax.Array]] = collections.deque()

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
        with (
            console.progress("train", job.steps, "steps", start=step) as advance,
            job.train_batches(step) as batches,
        ):
            if restored_step is None:
                self._evaluate(0, state, advance)
                if config.benchmark is not None:
                    self._benchmark(0, state)
            self._meter.start()
            for batch in batches:
                step += 1
                self._trace(step, advance)
                with annotated(step):
                    state, metrics = train_step(state, batch)
                    counts = count_work(batch)
                    for value in (*metrics.values(), counts):
                        value.copy_to_host_async()
                self._unread.append((step, metrics, counts))
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
            self._trace(job.steps + 1, advance)
        return state, self._meter

    def _trace(self, next_step: int, advance: console.Advance) -> None:
        """Begins or ends the trace where it is due before `next_step` is dispatched; the devices are idle then."""
        if not self._traced or next_step not in (self._traced.start, self._traced.stop):
            return
        self._read_metrics(0, advance)
        if self._processes.is_first:
            folder = self._job.config.out / "tensorboard"
            if next_step == self._traced.start:
                start_trace(folder)
            else:
                console.say(f"train: {stop_trace(folder)}")
        self._meter.start()

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
            step, metrics, counts = self._unread.popleft()
            values: dict[str, Any] = {name: value.item() for name, value in jax.device_get(metrics).items()}
            work = work_of(counts, self._job.model, self._job.config.lora)
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
        sums: collections.deque[Any] = collections.deque()
        loss_sum, loss_tokens = 0.0, 0
        with self._job.heldout_batches() as batches:
            for number, batch in enumerate(batches, start=1):
                sums.append(self._eval_step(state.params, state.frozen, batch))
                if len(sums) > STEPS_AHEAD:
                    loss_sum, loss_tokens = _add(loss_sum, loss_tokens, sums.popleft())
                advance(0, f"held-out batch {number}")
        for unread in sums:
            loss_sum, loss_tokens = _add(loss_sum, loss_tokens, unread)
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


def _add(loss_sum: float, loss_tokens: int, batch: tuple[jax.Array, jax.Array]) -> tuple[float, int]:
    """Returns both sums with those of a held-out batch, which it waits for."""
    batch_sum, batch_count = jax.device_get(batch)
    return loss_sum + float(batch_sum), loss_tokens + int(batch_count)


def _due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0
