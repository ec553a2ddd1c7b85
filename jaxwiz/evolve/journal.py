"""The journal: every answered call is on the disk before it is used, so a killed run asks nothing twice.

One JSON line for each answered call, appended and flushed to the disk once for all that arrived together. A kill can
tear the last line off; it is cut away when the journal is opened, and its call is asked again. So are calls that were
under way at the kill: their answers never came. Memory holds where each answer stands, not the answers.
"""

import contextlib
import fcntl
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, overload

from jaxwiz import files
from jaxwiz.console import Advance
from jaxwiz.evolve.account import Account
from jaxwiz.evolve.config import EvolveConfig
from jaxwiz.evolve.live import LiveView
from jaxwiz.files import UserError
from jaxwiz.llm.protocol import GenerationRequest, GenerationResult, TextGenerator
from jaxwiz.llm.recording import RecordedAnswer, parse_line, recorded_lines, request_key

COLLECT_AFTER = 20_000  # new objects; Python's own default, some hundreds, suits programs that hold little


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
        self._may_be_known = len(journal) > 0  # by an earlier process; answers of this one are to other calls
        self._view = LiveView(generator.activity, self.account, plan)

    def ask(self, calls: Sequence[Call], title: str) -> list[GenerationResult | None]:
        """Returns the answers in the order of `calls`, with None for those that the budget left no room for.

        Args:
          calls: the questions; equal requests are asked once.
          title: what the progress display says.
        """
        phase = _Phase(calls, self._generator.name, self._journal, self.account)
        if self._may_be_known or self.account.is_limited:
            phase.find_all()
        if phase.known == len(calls):
            return phase.results()
        first = 0
        with self._view.watch(title, len(calls), phase.known) as advance, _rare_garbage_collection():
            for wave in self._waves(phase):
                self._send_wave(wave, phase, first, advance)
                first += len(wave)
        return phase.results()

    def _waves(self, phase: "_Phase") -> Iterator[Sequence[GenerationRequest]]:
        """Yields what the budget has room for: all at once without one, else as many as can't exceed it, and again."""
        if not self.account.is_limited:
            yield phase
            return
        left = phase[:]
        while left and not self.is_broke:
            count = self.account.affordable(left)
            self.is_broke = count == 0
            if count:
                yield left[:count]
            left = left[count:]

    def _send_wave(self, requests: Sequence[GenerationRequest], phase: "_Phase", first: int, advance: Advance) -> None:
        """Asks requests, of which the first is that many-th of the phase; what is durable goes into its answers."""

        def keep(results: Mapping[int, GenerationResult]) -> None:
            name = self._generator.name
            asked = [(*phase.asked[first + index], result) for index, result in results.items()]
            self._journal.append([RecordedAnswer(key.hex(), name, call.kind, result) for key, call, result in asked])
            for key, call, result in asked:
                phase.answers[key] = result
                self.account.add(call.round, call.kind, result)
            self.sent += len(results)
            advance(len(results))

        self._generator.generate_all(requests, keep)


@contextlib.contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    """Lets the collector of cycles run once for many objects: it would go through all answers of a phase every time.

    At thousands of calls a second that is 3% of the throughput.
    """
    before = gc.get_threshold()
    gc.set_threshold(before[0] and max(before[0], COLLECT_AFTER), *before[1:])  # 0: it is switched off
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Phase(Sequence[GenerationRequest]):
    """The requests of a phase that the journal doesn't answer, each found when it is first looked at.

    Keys take a while for a hundred thousand calls; a generator that only goes through them sends the first at once.

    Attributes:
      asked: key and call of each request that was found.
      answers: by key: what the journal knows, and what has been answered since.
    """

    def __init__(self, calls: Sequence[Call], generator: str, journal: Journal, account: Account) -> None:
        self.asked: list[tuple[bytes, Call]] = []
        self.answers: dict[bytes, GenerationResult] = {}
        self._calls, self._generator, self._journal, self._account = calls, generator, journal, account
        self._keys: list[bytes] = []  # of the calls that were looked at
        self._asked_keys: set[bytes] = set()

    @property
    def known(self) -> int:
        """How many calls need not be asked, of those that were looked at."""
        return len(self._keys) - len(self.asked)

    def results(self) -> list[GenerationResult | None]:
        """Returns the answer to each call, None where there is none."""
        self.find_all()
        return [self.answers.get(key) for key in self._keys]

    def find_all(self) -> None:
        """Looks at all calls, and enters those into the books that the journal answers."""
        self._find(len(self._calls))

    def _find(self, count: int) -> None:
        """Looks on until `count` requests are found or all calls were looked at."""
        while len(self.asked) < count and len(self._keys) < len(self._calls):
            call = self._calls[len(self._keys)]
            key = bytes.fromhex(request_key(self._generator, call.request))
            self._keys.append(key)
            if key in self._asked_keys or key in self.answers:
                continue
            if key in self._journal:
                self.answers[key] = self._journal[key]
                self._account.add(call.round, call.kind, self.answers[key])
            else:
                self._asked_keys.add(key)
                self.asked.append((key, call))

    def __iter__(self) -> Iterator[GenerationRequest]:
        index = 0
        while True:
            self._find(index + 1)
            if index == len(self.asked):
                return
            yield self.asked[index][1].request
            index += 1

    def __len__(self) -> int:
        self.find_all()
        return len(self.asked)

    @overload
    def __getitem__(self, index: int) -> GenerationRequest: ...
    @overload
    def __getitem__(self, index: slice) -> list[GenerationRequest]: ...
    def __getitem__(self, index: int | slice) -> GenerationRequest | list[GenerationRequest]:
        self.find_all()
        if isinstance(index, slice):
            return [call.request for _, call in self.asked[index]]
        return self.asked[index][1].request
