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
from jaxwiz.sample.engine import Answer, Engine, Request, load_engine

_HEADER = "model.json"

OnProgress = Callable[[int, int, float], None]


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """Which model answers, and how it is run.

    Attributes:
      checkpoint: its folder, the same path on every node.
      header_sha256: of the checkpoint's header, so that another one at this path is noticed.
      template: the instruction template; names the tokens that end an answer beside EOS.
      batch_size: rows of every batch.
      dtype: "float32" or "bfloat16".
    """

    checkpoint: Path
    header_sha256: str
    template: str
    batch_size: int
    dtype: str


@dataclasses.dataclass(frozen=True)
class AnsweredBatch:
    """The answers to a batch's requests, in order, and the seconds that they took, compilation included."""

    answers: tuple[Answer, ...]
    seconds: float


def engine_settings(checkpoint: Path, template: str, batch_size: int, dtype: str) -> EngineSettings:
    """Returns the settings for a checkpoint that is known to be one, as it is here and now."""
    digest = sha256_of_file(checkpoint / _HEADER)
    return EngineSettings(checkpoint.absolute(), digest, template, batch_size, dtype)


def answer_batches(
    settings: EngineSettings,
    batches: Iterator[tuple[int, Sequence[Request]]],
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[int, AnsweredBatch]]:
    """Yields (number, answers) of each (number, requests), having loaded the checkpoint once.

    Args:
      settings: the model.
      batches: at most `batch_size` requests each.
      on_progress: called while a batch is under way with (tokens added, answers finished, seconds) since the last call.

    Raises:
      UserError: this machine does not see the checkpoint, or sees another one.
    """
    _require_checkpoint(settings)
    engine = load_engine(settings.checkpoint, settings.template, settings.batch_size, settings.dtype)
    for number, requests in batches:
        yield number, _answer(engine, requests, on_progress)


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


def _answer(engine: Engine, requests: Sequence[Request], on_progress: OnProgress | None) -> AnsweredBatch:
    began = last = time.monotonic()

    def report(tokens: int, finished: int) -> None:
        nonlocal last
        now = time.monotonic()
        if on_progress is not None:
            on_progress(tokens, finished, now - last)
        last = now

    answers = engine.generate(requests, report)
    return AnsweredBatch(tuple(answers), time.monotonic() - began)
