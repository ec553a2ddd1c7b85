"""Batches of requests in, answers out: the part of sampling that needs the model, and so the part that nodes do.

An answer depends on its request and the checkpoint, not on where or beside which others it was generated, so that a
cluster writes the same completions as one machine. That holds to the bit in float32 on processors of one kind; another
kind of processor, or bfloat16, may round differently and let a near-tie fall the other way.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxwiz.files import UserError, sha256_of_file
from jaxwiz.sample.config import SampleConfig
from jaxwiz.sample.engine import Engine
from jaxwiz.sample.load import load_engine
from jaxwiz.sample.requests import Answer, Request, TokenEvent, joined
from jaxwiz.sharding.mesh import MeshConfig, make_mesh

_HEADER = "model.json"

OnProgress = Callable[[int, int, float], None]


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """Which model answers, and how it is run.

    Attributes:
      checkpoint: its folder, the same path on every node.
      header_sha256: of the checkpoint's header, so that another one at this path is noticed.
      template: the instruction template; names the tokens that end an answer beside EOS.
      slots: answers under way at once.
      weights_dtype: "float32", "bfloat16" or "int8".
      cache_dtype: likewise.
      adapter: folder of LoRA adapters or None.
      mesh: how to split over devices, or None.
      longest: tokens of the longest request with its longest answer.
      draws_ahead: whether there are always more batches to draw while some are under way; a cluster's nodes get the
        next one when they have answered the last.
    """

    checkpoint: Path
    header_sha256: str
    template: str
    slots: int
    weights_dtype: str
    cache_dtype: str
    adapter: Path | None
    mesh: MeshConfig | None
    longest: int
    draws_ahead: bool


@dataclasses.dataclass(frozen=True)
class AnsweredBatch:
    """The answers to a batch's requests, in order, and the seconds since the last batch was answered."""

    answers: tuple[Answer, ...]
    seconds: float


def engine_settings(config: SampleConfig, longest: int, draws_ahead: bool) -> EngineSettings:
    """Returns the settings for a checkpoint that is known to be one, as it is here and now."""
    return EngineSettings(
        config.checkpoint.absolute(),
        sha256_of_file(config.checkpoint / _HEADER),
        config.template,
        config.batch_size,
        config.dtype,
        cache_dtype(config.dtype, config.cache_dtype),
        config.adapter,
        config.mesh,
        longest,
        draws_ahead,
    )


def cache_dtype(dtype: str, chosen: str | None) -> str:
    """Returns the dtype of keys and values; where none is chosen, bfloat16 beside weights in bfloat16, else float32."""
    return chosen or ("bfloat16" if dtype == "bfloat16" else "float32")


def answer_batches(
    settings: EngineSettings,
    batches: Iterator[tuple[int, Sequence[Request]]],
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[int, AnsweredBatch]]:
    """Yields (number, answers) of each (number, requests) as they are complete, having loaded the checkpoint once.

    Args:
      settings: the model.
      batches: drawn ahead, where settings allow it, so that slots are refilled across batches.
      on_progress: called after each step with (tokens added, answers finished, seconds) since the last call.

    Raises:
      UserError: this machine does not see the checkpoint, or sees another one.
    """
    _require_checkpoint(settings)
    engine = load_engine(
        settings.checkpoint,
        settings.template,
        settings.slots,
        settings.weights_dtype,
        settings.cache_dtype,
        settings.adapter,
        None if settings.mesh is None else make_mesh(settings.mesh),
    )
    engine.reserve([settings.longest] * settings.slots)
    under_way = _UnderWay(engine, on_progress)
    for number, requests in batches:
        under_way.begin(number, requests)
        while not engine.idle and not (settings.draws_ahead and engine.waiting < settings.slots):
            yield from under_way.step()
    while not engine.idle:
        yield from under_way.step()


class _UnderWay:
    """Batches whose answers are being generated."""

    def __init__(self, engine: Engine, on_progress: OnProgress | None) -> None:
        self._engine = engine
        self._on_progress = on_progress
        self._batches: dict[int, dict[int, list[TokenEvent]]] = {}  # number -> {id of request: what it has so far}
        self._batch_of: dict[int, int] = {}
        self._last_step = self._last_batch = time.monotonic()

    def begin(self, number: int, requests: Sequence[Request]) -> None:
        """Submits a batch."""
        ids = [self._engine.submit(request) for request in requests]
        self._batches[number] = {key: [] for key in ids}
        self._batch_of.update(dict.fromkeys(ids, number))

    def step(self) -> Iterator[tuple[int, AnsweredBatch]]:
        """Yields the batches that one step of the engine completed."""
        events = self._engine.step()
        now = time.monotonic()
        if self._on_progress is not None:
            finished = sum(bool(event.finish_reason) for event in events)
            self._on_progress(sum(len(event.tokens) for event in events), finished, now - self._last_step)
        self._last_step = now
        for event in events:
            self._batches[self._batch_of[event.id]][event.id].append(event)
        for number in sorted({self._batch_of[event.id] for event in events if event.finish_reason}):
            parts = self._batches[number].values()
            if all(part and part[-1].finish_reason for part in parts):
                del self._batches[number]
                yield number, AnsweredBatch(tuple(map(joined, parts)), now - self._last_batch)
                self._last_batch = now


def _require_checkpoint(settings: EngineSettings) -> None:
    header = settings.checkpoint / _HEADER
    if not header.is_file():
        raise UserError(
            f"checkpoint = '{settings.checkpoint}': not to be seen from here; put it on a file system that all nodes "
            "share, or copy it to this path on each of them"
        )
    if sha256_of_file(header) != settings.header_sha256:
        raise UserError(
            f"checkpoint = '{settings.checkpoint}': another checkpoint lies at this path; copy the same one"
        )
