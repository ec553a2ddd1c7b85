"""The journal: every answered call is on the disk before it is used, so a killed run asks nothing twice.

One JSON line for each answered call, appended and flushed to the disk once for all that arrived together. A kill can
tear the last line off; it is cut away when the journal is opened, and its call is asked again. So are calls that were
under way at the kill: their answers never came. Memory holds where each answer stands, not the answers.
"""

import contextlib
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from jaxwiz import files
from jaxwiz.console import Advance
from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.live import LiveView
from jaxwiz.files import UserError
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult, TextGenerator
from jaxwiz.llm.recording import RecordedAnswer, parse_line, recorded_lines, request_key


class JournalError(UserError):
    """A journal that cannot be used; the message names it and the remedy."""


class Call(NamedTuple):
    """A request and what it is for.

    Attributes:
      kind: "evolve", "judge", "answer" or "difficulty".
      round: whose round; 0 for seeds.
      request: what is asked.
    """

    kind: str
    round: int
    request: GenerationRequest


def journal_path(config: EvolveConfig) -> Path:
    """Returns where the journal of a run lies."""
    return Path(config.journal) if config.journal else config.out / "journal.jsonl"


class Journal:
    """Answers by key, on disk; a context manager that closes its file. One process at a time has it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._places: dict[bytes, int] = {}  # key -> where its line begins
        self._size = 0
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise
        self._reader = open(path, "rb")  # noqa: SIM115 - closed by __exit__

    def _read(self) -> None:
        """Finds all answers, and cuts a torn last line away."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"{self._path}: another process writes this journal; wait for it, or name another"
            ) from None
        for line_bytes, answer in recorded_lines(self._path):
            if answer is not None:
                self._places[_key_of(answer, self._path)] = self._size
            self._size += line_bytes
        self._file.truncate(self._size)

    def __len__(self) -> int:
        """Returns how many different calls are answered."""
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        """Says whether the call of a key, 32 bytes, is answered."""
        return key in self._places

    def __getitem__(self, key: bytes) -> GenerationResult:
        """Returns the answer to a call."""
        self._reader.seek(self._places[key])
        return parse_line(self._reader.readline(), str(self._path)).result

    def append(self, answers: Sequence[RecordedAnswer]) -> None:
        """Makes `answers` durable, then known.

        Raises:
          OSError: they could not be written, for instance because the disk is full; the file is as it was before.
        """
        lines = [answer.to_line() for answer in answers]
        left = memoryview(b"".join(lines))
        try:
            while left:
                left = left[self._file.write(left) :]
            files.flush_to_disk(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self._path)) from None
        for answer, line in zip(answers, lines, strict=True):
            self._places[bytes.fromhex(answer.key)] = self._size
            self._size += len(line)

    def absorb(self, path: Path) -> None:
        """Takes over the whole lines of another journal, then removes it; what a kill tore off is left out."""
        known = [answer for _, answer in recorded_lines(path) if answer is not None]
        self.append([answer for answer in known if _key_of(answer, path) not in self])
        path.unlink()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._file.close()


def _key_of(answer: RecordedAnswer, path: Path) -> bytes:
    try:
        return bytes.fromhex(answer.key)
    except ValueError:
        raise JournalError(
            f"{path}: holds the key {answer.key[:80]!r}, which is no hash; restore the journal, or delete "
            "its lines from there on to ask for them again"
        ) from None


class JournaledGenerator:
    """A generator that answers from the journal what it holds, and asks and journals the rest.

    Attributes:
      account: what the calls of this run took, those answered from the journal included.
      sent: how many calls went to the generator in this process.
      is_broke: whether calls were left out because the budget has no room for them.
    """

    def __init__(
        self,
        generator: TextGenerator,
        journal: Journal,
        account: Account | None = None,
        plan: Mapping[str, int] | None = None,
    ) -> None:
        """Takes a generator that journals and counts.

        Args:
          generator: who answers what the journal doesn't.
          journal: of the run.
          account: of the run; None: one without prices and limits.
          plan: for the view of the run: most calls of each phase, by title.
        """
        self.account = account or Account()
        self.sent = 0
        self.is_broke = False
        self._generator = generator
        self._journal = journal
        self._watch = LiveView(generator.activity, self.account, plan).watch

    def ask(self, calls: Sequence[Call], title: str) -> list[GenerationResult | None]:
        """Returns the answers in the order of `calls`, with None for those that the budget left no room for.

        Args:
          calls: the questions; equal requests are asked once.
          title: what the progress display says.
        """
        keys = [bytes.fromhex(request_key(self._generator.name, call.request)) for call in calls]
        missing: dict[bytes, Call] = {}
        answers: dict[bytes, GenerationResult] = {}
        for key, call in zip(keys, calls, strict=True):
            if key not in self._journal:
                missing.setdefault(key, call)
            elif key not in answers:
                answers[key] = self._journal[key]
                self.account.add(call.round, call.kind, answers[key])
        if missing:
            self._send(missing, title, answers)
        return [answers.get(key) for key in keys]

    def _send(self, missing: Mapping[bytes, Call], title: str, answers: dict[bytes, GenerationResult]) -> None:
        """Asks in waves that the budget has room for, without a budget in one; what is durable goes into `answers`."""
        keys = list(missing)
        with self._watch(title, len(keys)) as advance:
            while keys and not self.is_broke:
                requests = [missing[key].request for key in keys]
                count = self.account.affordable(requests)
                self.is_broke = count == 0
                self._send_wave(keys[:count], missing, requests[:count], answers, advance)
                keys = keys[count:]

    def _send_wave(
        self,
        keys: Sequence[bytes],
        calls: Mapping[bytes, Call],
        requests: Sequence[GenerationRequest],
        answers: dict[bytes, GenerationResult],
        advance: Advance,
    ) -> None:
        def keep(results: Mapping[int, GenerationResult]) -> None:
            name = self._generator.name
            self._journal.append(
                [
                    RecordedAnswer(keys[index].hex(), name, calls[keys[index]].kind, result)
                    for index, result in results.items()
                ]
            )
            for index, result in results.items():
                answers[keys[index]] = result
                self.account.add(calls[keys[index]].round, calls[keys[index]].kind, result)
            self.sent += len(results)
            advance(len(results))

        if requests:
            self._generator.generate_all(requests, keep)
