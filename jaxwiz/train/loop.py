"""The training loop, in an order that is a promise:

    restore or begin -> [held-out loss and benchmark before the first step] -> for each step: its batch, the step
    itself, then where due held-out loss, then benchmark, then checkpoint -> both measured after the last step

The state after step n is saved only once the metrics of step n are written and known to be finite, so a run that
continues from it has all its lines, and never continues from broken numbers; what was due where the numbers were not
finite is saved after the next step whose are. The loop dispatches a few steps ahead of the devices and reads metrics
late: reading them at once would leave the devices idle while the host prepares. Batches come from threads that read
ahead (`train/feeding.py`).

A wish to stop (`train/stopping.py`) is answered after a step, or between batches of a held-out loss, which is measured
first thing when the run continues. Where a job has several processes, each runs this loop, and they part only where
something is written once.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxwiz import console
from jaxwiz.checkpoint.train_state import TrainCheckpoints
from jaxwiz.checkpoint.weights import load_weights
from jaxwiz.model.attention_check import require_attention
from jaxwiz.model.attention_kernels import AttentionShape, choose_attention
from jaxwiz.model.params import Params
from jaxwiz.sharding.processes import current
from jaxwiz.train import benchmark
from jaxwiz.train.anomalies import Anomalies
from jaxwiz.train.bad_data import ShardCheck
from jaxwiz.train.history import History
from jaxwiz.train.job import TrainError, TrainJob
from jaxwiz.train.metrics import MetricsLog, SilentLog, kept_lines
from jaxwiz.train.profile import annotated, start_trace, steps_to_trace, stop_trace
from jaxwiz.train.resume import open_checkpoints, require_same_run
from jaxwiz.train.speed import SpeedMeter, count_work, peak_of_devices, work_of
from jaxwiz.train.state import TrainState, first_state
from jaxwiz.train.stopping import StopSignals
from jaxwiz.train.watchdog import DEVICES, PROGRESS_FILE, Watchdog

STEPS_AHEAD = 2
_MOST_HISTORY = 2000  # lines of metrics from which a run that continues judges its next steps


@dataclasses.dataclass(frozen=True)
class Guards:
    """What stands around a run's loop.

    Attributes:
      stopping: whether the run was told to end.
      history: its starts and ends.
      shards: whether its data is what was made.
      log: of this process, where stacks go.
    """

    stopping: StopSignals
    history: History
    shards: ShardCheck
    log: Path


def train(
    job: TrainJob, guards: Guards, profile: str | None = None, allow_change: Sequence[str] = ()
) -> tuple[TrainState, SpeedMeter, TrainCheckpoints]:
    """Returns the state after the last step, continuing from the newest intact one on disk, and how the saves went.

    Args:
      job: the run.
      guards: what stands around it.
      profile: steps to trace, as `--profile` takes them; None: none.
      allow_change: keys of the config that may differ from a saved state's; see `train/resume.py`.

    Raises:
      ChangedRunError: the saved state is another run's.
      TooManyBadStepsError: loss or gradients were not finite too often; names the steps.
      StopRequestedError: it was told to end, and has saved its state.
      UserError: the data cannot be trained on.
    """
    config, out, processes = job.config, job.config.out, current()
    checkpoints = open_checkpoints(job, processes)
    try:
        restored_step = checkpoints.latest_intact()
        if restored_step is not None:
            require_same_run(checkpoints.about(restored_step), config, allow_change)
        traced = steps_to_trace(profile, 1 + (restored_step or 0), job.steps)
        history = kept_lines(out, restored_step) if processes.is_first else []
        log = MetricsLog(out, restored_step, config.intervals.log_steps) if processes.is_first else SilentLog()
        meter = SpeedMeter(peak_of_devices(config.compute.dtype))
        with (
            contextlib.closing(log),
            Watchdog(
                config.intervals.faults.step_limit_s,
                processes,
                guards.log,
                lambda: {"steps": job.steps, "tokens_per_s": meter.tokens_per_s, "mfu": meter.mfu},
                out / PROGRESS_FILE if processes.is_first else None,
            ) as watchdog,
        ):
            state = _Loop(job, checkpoints, log, traced, guards, watchdog, meter, history).run(restored_step)
            return state, meter, checkpoints
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
        guards: Guards,
        watchdog: Watchdog,
        meter: SpeedMeter,
        history: list[dict[str, Any]],
    ) -> None:
        self._job = job
        self._checkpoints = checkpoints
        self._log = log
        self._traced = traced
        self._guards = guards
        self._watchdog = watchdog
        self._processes = current()
        self._meter = meter
        # Process 0 keeps the metrics, and all of them judge by the same ones.
        told = self._processes.of_first(json.dumps(history[-_MOST_HISTORY:]))
        history = json.loads(told)
        self._anomalies = Anomalies(job.config.intervals.faults, job.train_feed, history)
        self._measured = {
            (line["step"], name) for line in history for name in ("heldout_loss", "benchmark") if name in line
        }
        self._heldout: dict[int, dict[str, float]] = {}  # of the newest step that has one
        # Step, its metrics, and what `count_work` counted; none of them waited for yet.
        self._unread: collections.deque[tuple[int, dict[str, jax.Array], jax.Array]] = collections.deque()

    def run(self, restored_step: int | None) -> TrainState:
        job, intervals, stopping = self._job, self._job.config.intervals, self._guards.stopping
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
        self._guards.history.begin(step)
        saved_step = step
        save_due = False
        stopping.steps_begin()
        with (
            console.progress("train", job.steps, "steps", start=step) as advance,
            job.train_batches(step) as batches,
        ):
            if not self._measure(step, state, advance) or stopping.agreed():
                raise stopping.stopped(f"it stands after step {step}")
            self._meter.start()
            self._watchdog.step(step + 1)
            for batch in batches:
                step += 1
                self._trace(step, advance)
                self._watchdog.doing(f"{DEVICES} to take step {step}")
                with annotated(step):
                    state, metrics = train_step(state, batch)
                    counts = count_work(batch)
                    for value in (*metrics.values(), counts):
                        value.copy_to_host_async()
                self._unread.append((step, metrics, counts))
                self._guards.shards.require()
                save_due |= step < job.steps and _due(step, intervals.checkpoint_steps)
                pause = save_due or step == job.steps or self._to_measure(step)
                self._read_metrics(0 if pause else STEPS_AHEAD, advance)
                goes_on = self._measure(step, state, advance) and not (step < job.steps and stopping.agreed())
                if not goes_on:
                    self._read_metrics(0, advance)
                if (save_due or not goes_on) and not self._anomalies.bad_in_a_row:
                    with self._watchdog.untimed("saving"):
                        self._checkpoints.save(step, state.to_save(), self._heldout.get(step))
                    save_due, saved_step = False, step
                if not goes_on:
                    self._checkpoints.require_saved()  # or else a restart would repeat what it can
                    raise stopping.stopped(f"saved after step {saved_step} of {job.steps}")
                if pause:
                    self._meter.start()
                self._watchdog.step(step + 1)
            self._trace(job.steps + 1, advance)
        return state

    def _to_measure(self, step: int) -> list[str]:
        """Returns what is measured after `step` steps and has not been yet."""
        config, ends = self._job.config, step in (0, self._job.steps)
        due = []
        if self._eval_step is not None and (ends or _due(step, config.intervals.eval_steps)):
            due.append("heldout_loss")
        if config.benchmark is not None and (ends or _due(step, config.benchmark.every_steps)):
            due.append("benchmark")
        return [name for name in due if (step, name) not in self._measured]

    def _measure(self, step: int, state: TrainState, advance: console.Advance) -> bool:
        """Measures what is due after a step; false: all processes stop here, and what is left is measured later."""
        for name in self._to_measure(step):
            with self._watchdog.untimed(name.replace("_", " ")):
                if name == "benchmark":
                    self._benchmark(step, state)
                elif not self._evaluate(step, state, advance):
                    return False
        return True

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
            self._watchdog.doing(f"{DEVICES} to finish step {step}")
            values: dict[str, Any] = {name: value.item() for name, value in jax.device_get(metrics).items()}
            work = work_of(counts, self._job.model, self._job.config.lora)
            self._meter.finished(work)
            tokens_per_s, mfu = self._meter.tokens_per_s or 0.0, self._meter.mfu or 0.0
            line = self._anomalies.judge(step, {**values, "tokens": work.tokens})
            self._log.write_step(step, line, {"tokens_per_s": tokens_per_s, "mfu": mfu})
            self._guards.history.step = step
            rate = self._job.config.optimizer.learning_rate
            self._anomalies.require_few(step, rate, self._checkpoints.last_saved)
            advance(1, f"loss {values['loss']:.4f}  {tokens_per_s:,.0f} tokens/s  MFU {mfu:.1%}")

    def _evaluate(self, step: int, state: TrainState, advance: console.Advance) -> bool:
        """Measures the held-out loss; false if all processes stop before it is known."""
        assert self._eval_step is not None
        sums: collections.deque[Any] = collections.deque()
        loss_sum, loss_tokens = 0.0, 0
        with self._job.heldout_batches() as batches:
            for number, batch in enumerate(batches, start=1):
                sums.append(self._eval_step(state.params, state.frozen, batch))
                if len(sums) > STEPS_AHEAD:
                    loss_sum, loss_tokens = _add(loss_sum, loss_tokens, sums.popleft())
                advance(0, f"held-out batch {number}")
                if self._guards.stopping.agreed():
                    return False
        for unread in sums:
            loss_sum, loss_tokens = _add(loss_sum, loss_tokens, unread)
        if loss_tokens == 0:
            raise TrainError(f"{self._job.config.dataset}: no row of the heldout split bears loss; build it again")
        loss = loss_sum / loss_tokens
        if not math.isfinite(loss):
            raise TrainError(f"held-out loss after step {step} = {loss}; are the weights of the checkpoint finite?")
        self._heldout = {step: {"heldout_loss": loss}}
        self._log.write_heldout(step, loss, loss_tokens)
        console.say(f"train: held-out loss {loss:.4f} nats a token after step {step}")
        return True

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
