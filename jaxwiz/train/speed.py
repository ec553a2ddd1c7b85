"""How fast a run is: tokens a second, and the share of the devices' peak that the model's own arithmetic reaches (MFU).

Only real tokens count, padding does not. The peak is the maker's figure where `model/flops.py` knows the device, else
what a plain matrix product reaches on it now; the source is always told with the number.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxwiz.model.config import ModelConfig
from jaxwiz.model.flops import device_peak_flops, train_flops_per_token
from jaxwiz.model.lora_config import LoraConfig
from jaxwiz.sharding.rules import replicated
from jaxwiz.train.step import DeviceBatch


@dataclasses.dataclass(frozen=True)
class Peak:
    """What MFU is relative to.

    Attributes:
      flops_per_s: of all devices of the job together.
      source: where the figure comes from.
    """

    flops_per_s: float
    source: str


def peak_of_devices(compute_dtype: str) -> Peak:
    """Returns the peak of all devices of this job; takes about a second where it has to be measured.

    Args:
      compute_dtype: dtype of the matrix product that is measured on a device of unknown peak.
    """
    device = jax.devices()[0]
    known = device_peak_flops(device.device_kind)
    if known is not None:
        return Peak(known * jax.device_count(), f"{device.device_kind}, data sheet, dense bfloat16")
    on_cpu = device.platform == "cpu"
    size = 2048 if on_cpu else 8192
    measured = measured_matmul_flops_per_s(size, compute_dtype)
    units = jax.process_count() if on_cpu else jax.device_count()  # one product occupies all cores of a host
    return Peak(measured * units, f"{device.device_kind}, measured {size}-cube {compute_dtype} matmul")


def measured_matmul_flops_per_s(size: int, dtype: str, repetitions: int = 3) -> float:
    """Returns the best rate of a plain square matrix product on the first device, in FLOP/s."""
    with jax.default_device(jax.local_devices()[0]):
        matrix = jnp.ones((size, size), jnp.dtype(dtype))
        product = jax.jit(jnp.matmul)
        product(matrix, matrix).block_until_ready()
        seconds = []
        for _ in range(repetitions):
            began = time.perf_counter()
            product(matrix, matrix).block_until_ready()
            seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one training step had to do.

    Attributes:
      tokens: real tokens, padding left out.
      flops: of the model, forward and backward.
    """

    tokens: int
    flops: float


def count_work(batch: DeviceBatch) -> jax.Array:
    """Returns the real tokens of a batch and the keys that they attend to together, float32 [2], on its devices.

    A token at position p of its example attends to p + 1 keys. Counted where the batch lies, since no process need have
    all of it; the result is fetched when the step's metrics are.
    """
    return _counter(batch["segment_ids"].sharding.mesh)(batch["segment_ids"], batch["positions"])


@functools.cache
def _counter(mesh: Mesh) -> jax.stages.Wrapped:
    def count(segment_ids: jax.Array, positions: jax.Array) -> jax.Array:
        real = segment_ids > 0
        return jnp.stack([jnp.sum(real, dtype=jnp.float32), jnp.sum(jnp.where(real, positions + 1.0, 0.0))])

    return jax.jit(count, out_shardings=replicated(mesh))


def work_of(counts: jax.Array, model: ModelConfig, lora: LoraConfig | None = None) -> Work:
    """Returns the work in a batch of which `count_work` counted tokens and keys; waits for them."""
    tokens, keys = (float(count) for count in jax.device_get(counts))
    if tokens == 0:
        return Work(0, 0.0)
    return Work(round(tokens), tokens * train_flops_per_token(model, keys / tokens, lora))


class SpeedMeter:
    """Adds up finished work over the time spent on steps; evaluations and pauses are left out by `start`."""

    def __init__(self, peak: Peak) -> None:
        self.peak = peak
        self._seconds = 0.0
        self._tokens = 0
        self._flops = 0.0
        self._since = time.perf_counter()

    def start(self) -> None:
        """Begins to count time from now; call it before the first step and after every pause."""
        self._since = time.perf_counter()

    def finished(self, work: Work) -> None:
        """Counts the work of a step that has just finished."""
        now = time.perf_counter()
        self._seconds += now - self._since
        self._since = now
        self._tokens += work.tokens
        self._flops += work.flops

    @property
    def tokens_per_s(self) -> float | None:
        """Real tokens a second so far; None before the first step."""
        return self._tokens / self._seconds if self._seconds else None

    @property
    def mfu(self) -> float | None:
        """Model FLOP/s over the peak, 0 to 1; None before the first step."""
        return self._flops / self._seconds / self.peak.flops_per_s if self._seconds else None
